package proof

// own is a table of Lethe that holds no events.
type own struct {
	name  string
	ttl   string // in ClickHouse's own form; "": its rows stay
	holds string // which personal data
	kept  string // how long, and why
}

// owns are all of them, as the migrations make them.
var owns = []own{
	{"anchors", "forget_at", "ids of accounts, organizations, workspaces, projects and deployments",
		"until no topic and no backup can bring back a row that the anchor speaks of"},
	{"dead_letters", "", "none: counts and reasons, and the source that published them", "for ever: it is an account"},
	{"erasure_keys", "forget_at", "the identifiers of erased persons, as rows carry them", "until the erasure's deadline, and by a month or two at a time while rows of it are kept"},
	{"erasures", "forget_at", "keyed hashes of the identifiers of erased persons", "until no topic and no backup can hold older data, or what a law or a hold keeps"},
	{"holds", "forget_at", "the identifiers that are held, and the reason", "while it holds; a released one goes at its forget_at"},
	{"ingest_ledger", "", "none: offsets, counts and digests", "for ever: it is the account that everything is proved by"},
	{"ingest_progress", "toDateTime(updated_at) + toIntervalDay(30)", "none: offsets", "30 days after the last report of a partition"},
	{"retention_classes", "", "none: the promises of all policy files", "for ever: rows of old promises need them"},
	{"retention_moves", "", "none: offsets and digests of the rows that were moved", "for ever: the account needs it"},
	{"retention_shortenings", "", "none: what later policy files made of older promises", "for ever: rows of old promises need them"},
	{"retention_sweeps", "", "none: counts", "for ever: it is an account"},
	{"schema_migrations", "", "none", "for ever"},
	{"verified_buckets", "toDateTime(verified_at) + toIntervalDay(90)", "none: hashes of parts", "90 days after the verification"},
}

func ownOf(name string) *own {
	for i := range owns {
		if owns[i].name == name {
			return &owns[i]
		}
	}
	return nil
}

// tableRows is one line per table of the database: those of events first.
func (p *Prover) tableRows(f *facts, r *Report) []Table {
	var events, rest []Table
	for i := range f.tables {
		t := &f.tables[i]
		line := Table{Name: t.Name, TTL: t.TTL, Rows: t.Rows, Oldest: when(t.Oldest), Detached: len(t.Detached), Says: r.about(t.Name)}
		if _, ok := kindOf(t.Name); ok {
			line.Holds, line.Kept = "events: ids of people, keyed hashes of e-mails and sessions, countries", "as each row's class promises"
			events = append(events, line)
			continue
		}
		line.Holds, line.Kept = "unknown: it is none of Lethe's tables", "nobody here knows"
		if o := ownOf(t.Name); o != nil {
			line.Holds, line.Kept = o.holds, o.kept
		}
		rest = append(rest, line)
	}
	return append(events, rest...)
}

// about says what is wrong with a table as such.
func (r *Report) about(table string) string {
	says := "as it must be"
	for _, f := range r.Faults {
		if f.Table == table && (f.Kind == wrongTTL || f.Kind == wrongAlias || f.Kind == wrongSetting || f.Kind == detached || f.Kind == copied) {
			if says == "as it must be" {
				says = ""
			} else {
				says += "; "
			}
			says += f.Kind
		}
	}
	return says
}
