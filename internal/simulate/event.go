package main

import (
	"fmt"
	"net/netip"

	"github.com/lethe-audit/lethe/internal/event"
)

// idOf is found again in the bytes on disk.
func idOf(number int64) string { return fmt.Sprintf("simulated-%08d-row", number) }

// markOf is found in the bytes on disk where a row still says who somebody was.
func markOf(number int64, person string) string { return person + " in " + idOf(number) }

// event makes what the service publishes.
func (h *happening) event() *event.Event {
	e := new(event.Event)
	e.Reset(h.kind)
	e.ID, e.Source, e.Type, e.Time = idOf(h.number), "/simulation", "com.example."+h.kind.String()+".v1", h.at
	set := func(a event.Attr, v string) {
		if v != "" {
			e.Set(a, v)
		}
	}
	if h.kind == event.Request {
		set(event.HTTPMethod, "GET")
		e.SetNum(event.HTTPStatus, 200)
	} else {
		set(event.EventAction, h.action)
		set(event.EventOutcome, "success")
	}
	set(event.UserID, h.actor)
	set(event.OnBehalfOf, h.behalf)
	set(event.OrganizationID, h.org)
	set(event.WorkspaceID, h.workspace)
	set(event.DeploymentID, h.deployment)
	set(event.DataCategory, h.category)
	set(event.PlanTier, h.tier)
	if h.owner != "" {
		set(event.TargetOwner, h.owner)
		e.Owners = append(e.Owners, h.owner)
	}
	if h.person != "" {
		set(event.TargetType, "user")
		set(event.TargetID, h.person)
	}
	e.Set(event.Metadata, "")
	for i, p := range h.people() {
		e.Metadata = append(e.Metadata, event.Pair{Key: fmt.Sprintf("person %d", i), Value: markOf(h.number, p)})
	}
	if h.traced {
		set(event.ClientAddress, "203.0.113.7")
		set(event.TraceID, "4bf92f3577b34da6a3ce929d0e0e4736")
	}
	return e
}

// nowhere stands for the country database: no period hangs on a country.
type nowhere struct{}

func (nowhere) Country(netip.Addr) string { return "ZZ" }
