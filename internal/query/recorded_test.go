package query

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/codec"
	"github.com/lethe-audit/lethe/internal/event"
	"github.com/lethe-audit/lethe/internal/redact"
	"github.com/lethe-audit/lethe/internal/retention"
)

// TestErasureIsLearntAgain shows that the audit event of an erasure passes ingest and
// tells all of it, to a database that has lost it, without naming anybody.
func TestErasureIsLearntAgain(t *testing.T) {
	d := open(t, nil)
	var subjects []string
	for i := range retention.MaxSubjects {
		subjects = append(subjects, `"user:zoe_`+strings.Repeat("x", i%9)+string(rune('a'+i%26))+`"`)
	}
	slices.Sort(subjects)
	subjects = slices.Compact(subjects)
	e := d.erasing(`{"subjects":[` + strings.Join(subjects, ",") + `]}`)
	raw := d.recorder.events[0]
	if strings.Contains(string(raw), "zoe") {
		t.Errorf("the event names somebody: %s", raw)
	}
	r := d.recorder.take(t)[0]
	if r.Data.Metadata["identity_verified"] != "id_document" || r.Data.User != "staff:officer" || len(r.Data.People) > 0 || r.Data.Outcome != "success" {
		t.Errorf("got %+v", r.Data)
	}
	stored := d.ingested(raw)
	got, hold, err := retention.Recorded(stored, d.keys.Fingerprints)
	all, readErr := d.store.Erasures(t.Context())
	if err != nil || readErr != nil || got == nil || hold != nil || len(all) != 1 {
		t.Fatalf("got %v, %v, %v, %v and %d erasures", got, hold, err, readErr, len(all))
	}
	want := all[0]
	slices.Sort(got.Hashes)
	slices.Sort(want.Hashes)
	if got.ID != e.ID || got.Scope != want.Scope || got.State != want.State || len(got.Hashes) != len(subjects) || !slices.Equal(got.Hashes, want.Hashes) ||
		!got.Until.Equal(want.Until) || !got.Deadline.Equal(want.Deadline) || !got.Everywhere.Equal(want.Everywhere) || !got.ForgetAt.Equal(want.ForgetAt) || got.PolicyVersion != want.PolicyVersion {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if !stored.OccurredAt.After(want.Until) {
		t.Error("the event would be erased by what it records")
	}
	if !got.UpdatedAt.Before(want.UpdatedAt) {
		t.Errorf("what is learnt is of %s and beats what is known, of %s", got.UpdatedAt, want.UpdatedAt)
	}
	for name, change := range map[string]func(r *event.Row){
		"is cut":           func(r *event.Row) { r.Metadata = r.Metadata[:1] },
		"is of another id": func(r *event.Row) { r.Text[event.TTargetID] = "x" },
		"lost some hashes": func(r *event.Row) {
			r.Metadata = slices.DeleteFunc(r.Metadata, func(p event.Pair) bool { return p.Key == "hashes.3" })
		},
		"ends later": func(r *event.Row) {
			for i := range r.Metadata {
				if r.Metadata[i].Key == "until" {
					r.Metadata[i].Value = "2099-01-01T00:00:00.000Z"
				}
			}
		},
	} {
		changed := d.ingested(raw)
		change(changed)
		if got, _, err := retention.Recorded(changed, d.keys.Fingerprints); got != nil || err == nil || strings.Contains(err.Error(), "k2:") {
			t.Errorf("a record that %s: got %v, %v, want an error that names nothing", name, got, err)
		}
	}
	if _, _, err := retention.Recorded(stored, func(s string) []string { return []string{s} }); err == nil {
		t.Error("a record sealed with other keys is taken")
	}
	if e, h, err := retention.Recorded(row(event.Audit, "x", "u", "o", 0), d.keys.Fingerprints); e != nil || h != nil || err != nil {
		t.Errorf("another event: got %v, %v, %v", e, h, err)
	}
}

// TestHoldIsLearntAgain shows the same of a hold, placed and released.
func TestHoldIsLearntAgain(t *testing.T) {
	d := open(t, nil)
	placed := d.holding("/v1/holds", `{"subjects":["user:zoe","device:d_1"],"reason":"case 2026-14"}`)
	read := func() (*event.Hold, event.Hold) {
		t.Helper()
		raw := d.recorder.events[len(d.recorder.events)-1]
		if strings.Contains(string(raw), "zoe") {
			t.Errorf("the event names somebody: %s", raw)
		}
		_, got, err := retention.Recorded(d.ingested(raw), d.keys.Fingerprints)
		all, readErr := d.store.Holds(t.Context())
		if err != nil || readErr != nil || got == nil || len(all) != 1 {
			t.Fatalf("got %v, %v, %v and %d holds", got, err, readErr, len(all))
		}
		return got, all[0]
	}
	got, want := read()
	if got.ID != placed.ID || !slices.Equal(got.Hashes, want.Hashes) || len(got.Subjects) > 0 || got.Reason != want.Reason ||
		!got.PlacedAt.Equal(want.PlacedAt) || !got.ReleasedAt.IsZero() || !got.ForgetAt.Equal(want.ForgetAt) || !got.UpdatedAt.Before(want.UpdatedAt) {
		t.Errorf("placed:\ngot  %+v\nwant %+v", got, want)
	}
	d.holding("/v1/holds/"+placed.ID+"/release", "")
	got, want = read()
	if !slices.Equal(got.Hashes, want.Hashes) || !got.ReleasedAt.Equal(want.ReleasedAt) || !got.ForgetAt.Truncate(time.Second).Equal(want.ForgetAt) ||
		!got.UpdatedAt.After(want.PlacedAt) || got.UpdatedAt.After(want.UpdatedAt) {
		t.Errorf("released:\ngot  %+v\nwant %+v", got, want)
	}
}

// ingested is the row that an ingester makes of a published event.
func (d *desk) ingested(raw []byte) *event.Row {
	d.t.Helper()
	var ev event.Event
	if err := codec.NewDecoder().Decode(event.Audit, raw, nil, &ev); err != nil || ev.Unknown+ev.Refused > 0 {
		d.t.Fatalf("ingest would refuse it: %v, %d attributes dropped", err, ev.Unknown+ev.Refused)
	}
	decision, err := d.policy.Decide(&ev, now)
	if err != nil || decision.Retention != "access_record@2y" {
		d.t.Fatalf("class: got %q, %v", decision.Retention, err)
	}
	redactor, err := redact.New(redact.Options{Keys: d.keys, Countries: nowhere{}, PolicyVersion: "v"})
	if err != nil {
		d.t.Fatal(err)
	}
	r := new(event.Row)
	redactor.Row(&ev, decision, r)
	return r
}

// nowhere knows no country.
type nowhere struct{}

func (nowhere) Country(netip.Addr) string { return "" }
