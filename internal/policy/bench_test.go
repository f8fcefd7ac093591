package policy

import (
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

func BenchmarkDecide(b *testing.B) {
	received := time.Date(2026, 3, 31, 10, 0, 0, 123e6, time.UTC)
	for _, name := range five {
		p := example(b, name)
		for _, c := range []struct {
			name string
			e    *event.Event
		}{
			{"request", newEvent(event.Request, received, event.HTTPMethod, "GET", event.UserID, "u_42", event.PlanTier, "pro", event.ClientAddress, "192.0.2.7")},
			{"audit", newEvent(event.Audit, received, event.EventAction, "member.removed", event.UserID, "u_42", event.PlanTier, "pro")},
			{"security", newEvent(event.Security, received, event.EventAction, "user.login", event.UserID, "u_42")},
		} {
			b.Run(name+"/"+c.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := p.Decide(c.e, received); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkFact(b *testing.B) {
	p := example(b, "bstrapr")
	for _, row := range []*event.Row{auditRow("member.invited", event.TTargetID, "u_1"), auditRow("account.deleted", event.TTargetID, "u_1")} {
		b.Run(row.Text[event.TAction], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Fact(row)
			}
		})
	}
}
