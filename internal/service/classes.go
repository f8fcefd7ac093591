package service

import (
	"context"

	"github.com/lethe-audit/lethe/internal/policy"
	"github.com/lethe-audit/lethe/internal/store"
)

// registeredClasses returns every class that any policy file ever produced, with what holds
// of it now.
func registeredClasses(ctx context.Context, db *store.Store) ([]policy.StoredClass, error) {
	classes, err := db.Classes(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]policy.StoredClass, len(classes))
	for i, c := range classes {
		all[i] = policy.Registered(policy.StoredClass{
			Key: c.Retention, Promised: period(c.Promised, c.Sentinel), Period: period(c.Period, c.Sentinel),
			Anchor: c.Anchor, KeyedBy: c.KeyedBy, After: period(c.After, false), Within: c.Within, AtLeast: period(c.AtLeast, false),
			Erasable: c.Erasable, Reason: c.Reason, Downgrade: c.Downgrade, ShortenedBy: c.ShortenedBy, ShortenedAt: c.ShortenedAt,
		})
	}
	return all, nil
}

func period(s store.Span, sentinel bool) policy.Period {
	return policy.Period{Months: s.Months, Days: s.Days, Sentinel: sentinel}
}
