package retention

import (
	"context"
	"fmt"
	"sync"

	"github.com/lethe-audit/lethe/internal/policy"
)

// Book holds the facts as the database has them. It asks on every use whether they
// have changed, so that what was erased a moment ago is not shown.
type Book struct {
	storage Storage
	policy  *policy.Policy
	hash    func(subject string) []string

	mu      sync.Mutex
	version string
	facts   *Facts
}

// NewBook makes a Book that has read nothing yet.
func NewBook(s Storage, p *policy.Policy, hash func(subject string) []string) *Book {
	return &Book{storage: s, policy: p, hash: hash}
}

// Facts returns what is known now.
func (b *Book) Facts(ctx context.Context) (*Facts, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// Asked before the facts are read: what changes in between is read again.
	version, err := b.storage.FactsVersion(ctx)
	if err != nil {
		return nil, fmt.Errorf("read facts: %w", err)
	}
	if b.facts != nil && version == b.version {
		return b.facts, nil
	}
	source, err := read(ctx, b.storage)
	if err != nil {
		return nil, fmt.Errorf("read facts: %w", err)
	}
	b.facts, b.version = New(b.policy, source, b.hash), version
	return b.facts, nil
}

func read(ctx context.Context, s Storage) (source Source, err error) {
	if source.Promises, err = s.Promises(ctx); err != nil {
		return source, err
	}
	if source.Facts, err = s.Facts(ctx); err != nil {
		return source, err
	}
	if source.Erasures, err = s.Erasures(ctx); err != nil {
		return source, err
	}
	source.Holds, err = s.Holds(ctx)
	return source, err
}
