//go:build kafka

package ingest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/lethe-audit/lethe/internal/ledger"
)

// mortal is an ingester that can end as a process does that is killed: nothing
// more comes from it, neither to Kafka, which it does not leave, nor to ClickHouse.
type mortal struct {
	*running
	mu    sync.Mutex
	dead  bool
	conns []net.Conn
}

func (s *stack) mortal(change func(*Options)) *mortal {
	s.t.Helper()
	m := new(mortal)
	m.running = s.start(func(o *Options) {
		if change != nil {
			change(o)
		}
		o.StopTimeout = 100 * time.Millisecond
		o.Transport.Dial, o.Dialer.DialFunc = m.dial, m.dial
		f := &faults{storage: storage{s.store}}
		f.insert = func(ctx context.Context, b Batch, token string) error {
			if m.isDead() {
				<-ctx.Done()
				return ctx.Err()
			}
			return f.storage.Insert(ctx, b, token)
		}
		f.ledger = func(ctx context.Context, entries []ledger.Entry) error {
			if m.isDead() {
				<-ctx.Done()
				return ctx.Err()
			}
			return f.storage.WriteLedger(ctx, entries)
		}
		o.Storage = f
	})
	return m
}

func (m *mortal) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil && m.dead {
		conn.Close()
		return nil, net.ErrClosed
	}
	m.conns = append(m.conns, conn)
	return conn, err
}

func (m *mortal) isDead() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

func (m *mortal) kill() {
	m.mu.Lock()
	m.dead = true
	for _, c := range m.conns {
		if c != nil {
			c.Close()
		}
	}
	m.mu.Unlock()
	m.stop()
}

// works reports whether a member has partitions of the first topic.
func (r *running) works() bool { return r.metric("lag_events", "topic="+r.o.Topics[0]) >= 0 }

func TestApacheMembersComeAndGoUnderLoad(t *testing.T) {
	s := newApache(t, 6, nil)
	l := s.load()
	members := []*mortal{s.mortal(nil), s.mortal(nil)}
	all := func(what string) {
		t.Helper()
		for n, m := range members {
			eventually(t, fmt.Sprintf("%s: member %d works", what, n), m.works)
		}
		l.goesOn(what, 300)
	}
	all("two members")
	members = append(members, s.mortal(nil))
	all("three members")
	members[1].kill()
	members = append(members[:1], members[2:]...)
	all("one was killed")
	members[1].stop()
	members = members[:1]
	all("one has left")
	// A storm: before the members have settled, one of them goes again.
	for n := range 8 {
		m := s.mortal(func(o *Options) { o.SessionTimeout = 2 * time.Second })
		eventually(t, "it takes part", func() bool { return m.metric("generations_total") > 0 })
		members = append(members, m)
		switch {
		case n%4 == 3:
			members[1].kill()
			members = append(members[:1], members[2:]...)
		case n%2 == 1:
			members[1].stop()
			members = append(members[:1], members[2:]...)
		}
	}
	all("the storm is over")
	for _, m := range members[1:] {
		m.stop()
	}
	members = members[:1]
	all("one is left")
	l.proves()
	members[0].stop()
}

// freezing is a connection of a process that can be frozen: it sends nothing
// while the gate is locked, and its deadlines stand still (they never pass).
type freezing struct {
	net.Conn
	gate *sync.RWMutex
}

func (c freezing) Write(b []byte) (int, error) {
	c.gate.RLock()
	defer c.gate.RUnlock()
	return c.Conn.Write(b)
}

func (freezing) SetDeadline(time.Time) error      { return nil }
func (freezing) SetReadDeadline(time.Time) error  { return nil }
func (freezing) SetWriteDeadline(time.Time) error { return nil }

// watched is a generation whose commits are seen.
type watched struct {
	committer
	saw func(at map[string]map[int]int64, err error)
}

func (w watched) CommitOffsets(at map[string]map[int]int64) error {
	err := w.committer.CommitOffsets(at)
	w.saw(at, err)
	return err
}

// A member freezes after the fence and before the insert, for longer than its
// session, while two others take over its partitions and go on.
func TestApacheFrozenMemberRewindsNothing(t *testing.T) {
	const parts, each = 4, 100
	s := newApache(t, parts, nil)
	publish := func(from int) {
		for p := range parts {
			s.publish(s.topics[0], p, kafka.Lz4, requestEvents(from+p*each, from+(p+1)*each)...)
		}
	}
	publish(0)
	short := func(o *Options) { o.SessionTimeout, o.RebalanceTimeout = 2*time.Second, 2*time.Second }

	var gate sync.RWMutex
	var first atomic.Bool
	full, thawed := make(chan struct{}), make(chan struct{})
	type refusal struct {
		at  map[int]int64
		err error
	}
	refused := make(chan refusal, 1)
	zombie := s.start(func(o *Options) {
		short(o)
		o.BatchRows, o.BatchAge = parts*each, time.Hour // the batch holds all partitions
		dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			return freezing{conn, &gate}, err
		}
		o.Transport.Dial, o.Dialer.DialFunc = dial, dial
		f := &faults{storage: storage{s.store}}
		f.insert = func(ctx context.Context, b Batch, token string) error {
			if first.CompareAndSwap(false, true) {
				gate.Lock()
				close(full)
				<-thawed
				gate.Unlock()
			}
			return f.storage.Insert(ctx, b, token)
		}
		o.Storage = f
	}, func(i *Ingester) {
		i.fence = func(c committer) committer {
			return watched{c, func(at map[string]map[int]int64, err error) {
				if err != nil && len(refused) == 0 {
					refused <- refusal{at[s.topics[0]], err}
				}
			}}
		}
	})
	<-full
	heirs := []*running{s.start(short), s.start(short)}
	eventually(t, "the others took over", s.done(s.topics[0], parts*each))
	publish(parts * each)
	client := kafka.Client{Addr: kafka.TCP(s.kafka.Brokers...), Transport: s.transport()}
	stand := func() (at [parts]int64) {
		t.Helper()
		res, err := client.OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{GroupID: s.group, Topics: map[string][]int{s.topics[0]: {0, 1, 2, 3}}})
		if err != nil || res.Error != nil {
			t.Fatalf("fetch offsets: %v %v", err, res)
		}
		for _, p := range res.Topics[s.topics[0]] {
			at[p.Partition] = p.CommittedOffset
		}
		return at
	}
	want := [parts]int64{2 * each, 2 * each, 2 * each, 2 * each}
	eventually(t, "the others have committed", func() bool { return stand() == want })
	for n, r := range heirs {
		eventually(t, fmt.Sprintf("heir %d works", n), r.works)
	}
	if len(refused) > 0 {
		t.Fatalf("the frozen member was refused before it went on: %v", (<-refused).err)
	}

	close(thawed)
	got := <-refused
	if !errors.Is(got.err, kafka.UnknownMemberId) && !errors.Is(got.err, kafka.IllegalGeneration) {
		t.Errorf("got commit of the frozen member: %v, want the broker's refusal", got.err)
	}
	for p := range parts {
		if got.at[p] != each {
			t.Errorf("partition %d: got refused offset %d, want %d: it was to store its batch and enter it in the ledger", p, got.at[p], each)
		}
	}
	if got := stand(); got != want {
		t.Errorf("got committed offsets %d, want %d as before the frozen member went on", got, want)
	}
	// It is a member again, whether or not it gets partitions.
	eventually(t, "the frozen member is ready", func() bool { return zombie.states.of(partKafka) == "ready" })
	publish(2 * parts * each)
	zombie.stop() // its batch does not get full again
	eventually(t, "all offsets in the ledger", s.done(s.topics[0], 3*parts*each))
	for _, r := range heirs {
		r.stop()
	}
	s.accounts(s.topics[0], 3*parts*each, 3*parts*each)
	s.verifies()
}
