// Package store is the one way to ClickHouse: it inserts batches of redacted
// rows and ledger entries, and it reads them back through one reader that hides
// what has expired. It decides, once, which errors are permanent.
//
// It creates no table (migrate does), decides nothing about retention (policy
// does) and never sees an event before redaction.
//
// An insert that returned nil is on disk. An insert that failed may be on disk
// in part; the same batch inserted again with the same token completes it and
// repeats nothing.
package store
