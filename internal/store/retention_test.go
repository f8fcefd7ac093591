package store

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/lethe-audit/lethe/internal/event"
)

func TestFactsComeBack(t *testing.T) {
	s, at := open(t), now.Add(-time.Hour)
	before, err := s.FactsVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fact := event.Fact{Subject: "user:u_1", Action: "account.deleted", OccurredAt: at, Source: "/svc/api", ID: "1", ReceivedAt: at, ForgetAt: at.AddDate(1, 0, 0)}
	plan := event.Fact{Subject: "organization:o_1", Action: "plan.changed", OccurredAt: at, Tier: "free", Source: "/svc/api", ID: "2", ReceivedAt: at, ForgetAt: at.AddDate(1, 0, 0)}
	for range 2 { // a repeated delivery
		if err := s.WriteFacts(t.Context(), []event.Fact{fact, plan}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b event.Fact) int { return len(a.Subject) - len(b.Subject) })
	want := []event.Fact{{Subject: "user:u_1", Action: "account.deleted", OccurredAt: at}, {Subject: "organization:o_1", Action: "plan.changed", OccurredAt: at, Tier: "free"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if after, err := s.FactsVersion(t.Context()); err != nil || after == before {
		t.Errorf("got version %q, %v: want another than before", after, err)
	}

	e := event.Erasure{ID: "e1", Scope: "subject", State: event.ErasureRequested, Hashes: []string{"k1:00"}, Until: at, Deadline: at.AddDate(0, 0, 30), Everywhere: at.AddDate(0, 0, 90),
		PolicyVersion: "v", UpdatedAt: at, ForgetAt: at.AddDate(1, 0, 0)}
	h := event.Hold{ID: "h1", Subjects: []string{"user:u_1", "email:k1:00"}, Hashes: []string{"k1:aa", "k1:bb"}, Reason: "litigation", PlacedAt: at, UpdatedAt: at, ForgetAt: at.AddDate(9, 0, 0)}
	for _, state := range []event.ErasureState{event.ErasureRequested, event.ErasureMoved} {
		e.State, e.UpdatedAt, e.ErasedRows = state, e.UpdatedAt.Add(time.Second), e.ErasedRows+1
		if err := s.WriteErasure(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if err := s.WriteHold(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		h.ReleasedAt, h.UpdatedAt = at.Add(time.Minute), h.UpdatedAt.Add(time.Second)
	}
	h.UpdatedAt = h.UpdatedAt.Add(-time.Second)
	if got, err := s.Erasures(t.Context()); err != nil || !reflect.DeepEqual(got, []event.Erasure{e}) {
		t.Errorf("got %+v, %v; want %+v", got, err, e)
	}
	if got, err := s.Holds(t.Context()); err != nil || !reflect.DeepEqual(got, []event.Hold{h}) {
		t.Errorf("got %+v, %v; want %+v", got, err, h)
	}
	if err := s.WriteErasureSubjects(t.Context(), "e1", []string{"user:u_1"}, at.AddDate(1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.ErasureSubjects(t.Context(), "e1"); err != nil || !slices.Equal(got, []string{"user:u_1"}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestFactsAreKeptLonger(t *testing.T) {
	s := open(t)
	soon, far, until := now.AddDate(0, 0, 3), now.AddDate(1, 0, 0), now.AddDate(0, 0, 60)
	if err := s.WriteFacts(t.Context(), []event.Fact{
		{Subject: "user:soon", Action: "account.deleted", OccurredAt: now, ReceivedAt: now, ForgetAt: soon},
		{Subject: "user:far", Action: "account.deleted", OccurredAt: now, ReceivedAt: now, ForgetAt: far},
		// A deletion that is kept longer than the return that clears it would stand alone.
		{Subject: "user:soon", Action: "account.restored", OccurredAt: now, ReceivedAt: now, ForgetAt: now.AddDate(0, 0, 40)},
		{Subject: "user:soon", Action: "account.created", OccurredAt: now, ReceivedAt: now, ForgetAt: far},
	}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds nothing to do
		if err := s.KeepFacts(t.Context(), now.AddDate(0, 0, 30), until); err != nil {
			t.Fatal(err)
		}
	}
	var text string
	if err := s.conn.QueryRow(t.Context(), `SELECT toString(arraySort(groupArray((subject, action, n, at)))) FROM (SELECT subject, toString(action) AS action, count() AS n, toUnixTimestamp(max(forget_at)) AS at FROM anchors GROUP BY subject, action)`).Scan(&text); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("[('user:far','account.deleted',1,%d),('user:soon','account.created',1,%[1]d),('user:soon','account.deleted',2,%d),('user:soon','account.restored',2,%[2]d)]", far.Unix(), until.Unix()); text != want {
		t.Errorf("got %s, want %s", text, want)
	}
	if got, err := s.Facts(t.Context()); err != nil || len(got) != 4 {
		t.Errorf("got %+v, %v: want each once", got, err)
	}
}

// overrides returns the rows of a kind with their expiry of their own.
func overrides(t *testing.T, s *Store, kind event.Kind) map[string]uint32 {
	t.Helper()
	rows, err := s.conn.Query(t.Context(), "SELECT id, expires_override FROM "+kind.Table())
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	all := make(map[string]uint32)
	for rows.Next() {
		var id string
		var at uint32
		if err := rows.Scan(&id, &at); err != nil {
			t.Fatal(err)
		}
		all[id] = at
	}
	return all
}

func TestMoveChangesWhatWasEnteredAndNothingElse(t *testing.T) {
	s, at := open(t), now.Add(-time.Hour)
	var rows []*event.Row
	for i, subject := range []string{"user:a", "user:b", "user:a", "user:c"} {
		r := newRow(event.Audit, account, "r"+string('0'+rune(i)), at)
		r.SubjectKeys, r.Offset = []string{subject}, int64(i)
		r.Text[event.TWorkspace] = "w" + string('0'+rune(i))
		rows = append(rows, r)
		insert(t, s, r) // each a part of its own
	}
	find := func(subjects ...string) (ids []string) {
		t.Helper()
		for r, err := range s.Candidates(t.Context(), event.Audit, subjects) {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, r.ID)
		}
		slices.Sort(ids)
		return ids
	}
	if got := find("user:a", "workspace:w3"); !slices.Equal(got, []string{"r0", "r2", "r3"}) {
		t.Errorf("got %v", got)
	}
	if got := find(); len(got) != 0 {
		t.Errorf("nothing is known and got %v", got)
	}
	forget := now.AddDate(1, 0, 0)
	if err := s.WriteFacts(t.Context(), []event.Fact{
		{Subject: "user:b", Action: "account.deleted", OccurredAt: at, ReceivedAt: at, ForgetAt: forget},
		{Subject: "workspace:w3", Action: "workspace.deleted", OccurredAt: at, ReceivedAt: at, ForgetAt: forget},
	}); err != nil {
		t.Fatal(err)
	}
	if got := find(); !slices.Equal(got, []string{"r1", "r3"}) {
		t.Errorf("got %v", got)
	}

	move := func(begin func() event.Sweep, to map[int]uint32) event.Sweep {
		t.Helper()
		w := begin()
		var moves []event.Move
		for i, at := range to {
			moves = append(moves, event.Move{Row: rows[i], To: at, Cause: "anchor"})
		}
		if err := s.WriteMoves(t.Context(), w, moves); err != nil {
			t.Fatal(err)
		}
		if err := s.Move(t.Context(), w, event.Audit); err != nil {
			t.Fatal(err)
		}
		return w
	}
	begin := func() event.Sweep {
		t.Helper()
		w, err := s.BeginSweep(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	future := uint32(now.AddDate(0, 1, 0).Unix())
	move(begin, map[int]uint32{0: future, 2: future + 1})
	if got, want := overrides(t, s, event.Audit), map[string]uint32{"r0": future, "r1": 0, "r2": future + 1, "r3": 0}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	zombie := begin()
	w := move(begin, map[int]uint32{0: 0})
	move(func() event.Sweep { return zombie }, map[int]uint32{1: future})
	if got, want := overrides(t, s, event.Audit), map[string]uint32{"r0": 0, "r1": 0, "r2": future + 1, "r3": 0}; !reflect.DeepEqual(got, want) {
		t.Errorf("after one that came too late: got %v, want %v", got, want)
	}
	if last, err := s.EndSweep(t.Context(), zombie, 1); err != nil || last {
		t.Errorf("got %v, %v: the sweep was overtaken", last, err)
	}
	if last, err := s.EndSweep(t.Context(), w, 1); err != nil || !last {
		t.Errorf("got %v, %v: want the last sweep to end", last, err)
	}
	if full, last, err := s.LastSweeps(t.Context()); err != nil || full.IsZero() || !full.Equal(last) {
		t.Errorf("got %v, %v, %v: want the instant the last one began, twice", full, last, err)
	}
	if left, err := s.Leftover(t.Context(), time.Now().Add(time.Minute)); err != nil || !left {
		t.Errorf("got %v, %v: the parts that were replaced are still there", left, err)
	}
	if left, err := s.Leftover(t.Context(), at); err != nil || left {
		t.Errorf("got %v, %v: no part was replaced before", left, err)
	}
}

// TestMoveRewritesOnlyPartsThatHoldTheRow counts what one move reads and writes. All of
// such a part is rewritten, because the TTL is made of the column that changes.
func TestMoveRewritesOnlyPartsThatHoldTheRow(t *testing.T) {
	s := open(t)
	// A month each; the user has a row in the second. The others have rows of the same
	// partition and offset, as after a topic was made anew.
	for month := range 3 {
		if err := s.conn.Exec(t.Context(), fmt.Sprintf(`INSERT INTO audit_events (occurred_at, received_at, source, id, retention_class, bucket, retained_from, src_topic, src_offset, subject_keys, session_id)
			SELECT now64(3) AS o, o, '/svc', toString(generateUUIDv4()), '%s', toStartOfMonth(o - INTERVAL %d MONTH), o, 'lethe.audit', number, ['user:u_' || toString(%d + number)], hex(randomString(16))
			FROM numbers(20000)`, account, month, month*20_000)); err != nil {
			t.Fatal(err)
		}
	}
	size := scalar[uint64](t, s, "SELECT sum(bytes_on_disk) FROM system.parts WHERE database = currentDatabase() AND table = 'audit_events' AND active")
	w, err := s.BeginSweep(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	counted := func(name string) uint64 {
		t.Helper()
		return scalar[uint64](t, s, "SELECT sum(value) FROM system.events WHERE event = '"+name+"'")
	}
	var moves []event.Move
	found := counted("SelectedRows")
	for r, err := range s.Candidates(t.Context(), event.Audit, []string{"user:u_20007", "user:nobody"}) {
		if err != nil {
			t.Fatal(err)
		}
		moves = append(moves, event.Move{Row: r, To: uint32(now.Unix()) + 1000, Cause: "anchor"})
	}
	if found = counted("SelectedRows") - found; found > 10_000 {
		t.Errorf("to find the rows of two people among 60,000 it read %d, want those of few granules", found)
	}
	if err := s.WriteMoves(t.Context(), w, moves); err != nil {
		t.Fatal(err)
	}
	written, read := counted("WriteBufferFromFileDescriptorWriteBytes"), counted("SelectedRows")
	if err := s.Move(t.Context(), w, event.Audit); err != nil {
		t.Fatal(err)
	}
	written, read = counted("WriteBufferFromFileDescriptorWriteBytes")-written, counted("SelectedRows")-read
	if got := scalar[uint64](t, s, "SELECT count() FROM audit_events WHERE expires_override > 0"); got != 1 || len(moves) != 1 {
		t.Fatalf("moved %d rows, want 1", got)
	}
	if written < size/4 || written > size/2 {
		t.Errorf("a move in one of three parts wrote %d bytes of %d, want about a third", written, size)
	}
	if read > 30_000 {
		t.Errorf("to find the row among 60,000 it read %d rows, want those of its month", read)
	}
}

// A member's rows are found by the person, in whatever organization: what they hang on is
// decided of each.
func TestCandidatesOfAMember(t *testing.T) {
	s, at := open(t), now.Add(-time.Hour)
	for i, person := range []string{"user:a", "user:b", "user:org/c", "user:x\ny"} {
		r := newRow(event.Audit, account, "r"+string('0'+rune(i)), at)
		r.SubjectKeys, r.Offset = []string{person}, int64(i)
		insert(t, s, r)
	}
	find := func(subjects ...string) (ids []string) {
		t.Helper()
		for r, err := range s.Candidates(t.Context(), event.Audit, subjects) {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, r.ID)
		}
		slices.Sort(ids)
		return ids
	}
	members := []string{event.Member("o/user:b/", "user:a"), event.Member("o", "user:org/c"), event.Member("", "user:x\ny")}
	var facts []event.Fact
	for _, m := range members {
		facts = append(facts, event.Fact{Subject: m, Action: "member.removed", OccurredAt: at, ReceivedAt: at, ForgetAt: now.AddDate(1, 0, 0)})
	}
	if err := s.WriteFacts(t.Context(), facts); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]string{"named": find(members...), "all that a fact speaks of": find()} {
		if !slices.Equal(got, []string{"r0", "r2", "r3"}) {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
