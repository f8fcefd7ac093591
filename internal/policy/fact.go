package policy

import "slices"

// effects says of each action which anchors it begins, and which it clears.
// A deletion is also the request for it, for those that promise from the request on.
var effects = map[string]struct{ starts, clears []string }{
	"account.deletion_requested": {starts: []string{"account.deletion_requested"}},
	"account.deleted":            {starts: []string{"account.deleted", "account.deletion_requested"}},
	"account.restored":           {clears: []string{"account.deleted", "account.deletion_requested"}},
}

// Effect says what an action does to a period that counts from an anchor.
func Effect(anchor, action string) (starts, clears bool) {
	e := effects[action]
	return slices.Contains(e.starts, anchor), slices.Contains(e.clears, anchor)
}

// Clears reports whether an action clears an anchor.
func Clears(action string) bool { return len(effects[action].clears) > 0 }
