package config

import (
	"errors"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
)

// ignoreName is the setting that excuses variables of other programs.
const ignoreName = "LETHE_ENV_IGNORE"

// prefixes start the names that are ours: an unknown name below one of them is
// a mistake. HTTP_, LOG_, DATA_, METRICS_ and STOP_ are not listed, because
// other programs use them freely; there only a near miss is a mistake.
var prefixes = []string{
	"KAFKA_", "CLICKHOUSE_", "BATCH_", "FETCH_", "POLICY_", "PROOF_", "GEOIP_", "SUBJECT_", "TOKENS_", "LETHE_",
}

// serviceLink matches what Kubernetes puts into every container for services
// named kafka or clickhouse. Nobody typed these names, so they are no mistakes.
var serviceLink = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// setting is one variable as the struct tags describe it.
type setting struct {
	Name, Field, Default, Help string
	Required                   bool
	Type                       reflect.Type
}

// settings lists the variables of a configuration struct in its order.
func settings(t reflect.Type) []setting {
	var list []setting
	for i := range t.NumField() {
		f := t.Field(i)
		tag, ok := f.Tag.Lookup("env")
		if !ok {
			list = append(list, settings(f.Type)...)
			continue
		}
		name, option, _ := strings.Cut(tag, ",")
		list = append(list, setting{
			Name: name, Field: f.Name, Default: f.Tag.Get("envDefault"), Help: f.Tag.Get("help"),
			Required: option == "required", Type: f.Type,
		})
	}
	return list
}

// programs are the configurations whose names every program knows: they may
// share one environment file.
var programs = []reflect.Type{
	reflect.TypeFor[Ingest](), reflect.TypeFor[Query](), reflect.TypeFor[Publish](), reflect.TypeFor[Standalone](),
}

func knownNames() []string {
	names := []string{ignoreName}
	for _, t := range programs {
		for _, s := range settings(t) {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// problems collects every mistake, so that one start shows them all.
type problems struct{ errs []error }

func (p *problems) add(name, what string) {
	p.errs = append(p.errs, errors.New(name+" "+what))
}

// load fills the struct that c points to. Unknown names, malformed values and
// missing ones come before validate, which looks at what was read.
func load(environ []string, c any, validate func(*problems)) error {
	vars := make(map[string]string, len(environ))
	for _, line := range environ {
		if name, value, ok := strings.Cut(line, "="); ok {
			vars[name] = value
		}
	}
	var p problems
	unknown(vars, &p)
	list := settings(reflect.TypeOf(c).Elem())
	for _, s := range list {
		// An empty variable counts as not set, so that compose files can pass one on.
		if s.Required && vars[s.Name] == "" {
			delete(vars, s.Name)
		}
	}
	if err := env.ParseWithOptions(c, env.Options{Environment: vars}); err != nil {
		explain(err, list, &p)
		return errors.Join(p.errs...)
	}
	validate(&p)
	return errors.Join(p.errs...)
}

// explain turns the parser's errors into sentences without values.
func explain(err error, list []setting, p *problems) {
	var all env.AggregateError
	if !errors.As(err, &all) {
		p.errs = append(p.errs, errors.New("read settings: the configuration struct is not one"))
		return
	}
	for _, e := range all.Errors {
		var missing env.VarIsNotSetError
		var parse env.ParseError
		switch {
		case errors.As(e, &missing):
			p.add(missing.Key, "is not set")
		case errors.As(e, &parse):
			i := slices.IndexFunc(list, func(s setting) bool { return s.Field == parse.Name })
			if i < 0 {
				p.add("a setting", "is malformed")
				continue
			}
			p.add(list[i].Name, "is malformed: it must be "+list[i].form())
		default:
			p.add("a setting", "cannot be read")
		}
	}
}

// form says in words what a value of the setting looks like.
func (s setting) form() string {
	switch {
	case s.Type == reflect.TypeFor[time.Duration]():
		return "a time such as 1s, 500ms or 2m"
	case s.Type == reflect.TypeFor[Bytes]():
		return "a size such as 8388608, 8MB or 8MiB"
	case s.Type == reflect.TypeFor[Tenants]():
		return "organization=country, each organization once, separated by commas"
	case s.Type.Kind() == reflect.Bool:
		return "true or false"
	case s.Type.Kind() == reflect.Int:
		return "a whole number"
	case s.Type.Kind() == reflect.Slice:
		return "a list separated by commas"
	}
	return "a text"
}

// unknown reports the variables that look like ours and are not.
func unknown(vars map[string]string, p *problems) {
	known := knownNames()
	excused := strings.Split(vars[ignoreName], ",")
	var names []string
	for name := range vars {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if slices.Contains(known, name) || serviceLink.MatchString(name) || excuse(excused, name) {
			continue
		}
		near, distance := nearest(name, known)
		ours := slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		switch {
		case distance <= max(2, len(near)/3) && ours, distance <= 1 && len(near) >= 8 && name != "HTTPS_ADDR":
			p.add(name, "is not a setting; did you mean "+near+"?")
		case ours:
			p.add(name, "is not a setting; where it belongs to another program, list it in "+ignoreName)
		}
	}
}

// excuse reports whether the operator listed the name, or a prefix of it with a
// star at the end.
func excuse(list []string, name string) bool {
	return slices.ContainsFunc(list, func(entry string) bool {
		entry = strings.TrimSpace(entry)
		prefix, star := strings.CutSuffix(entry, "*")
		return entry == name || (star && prefix != "" && strings.HasPrefix(name, prefix))
	})
}

// nearest returns the known name that takes the fewest edits. Case and
// underscores are free, so LOGLEVEL is LOG_LEVEL.
func nearest(name string, known []string) (string, int) {
	fold := func(s string) string { return strings.ReplaceAll(strings.ToUpper(s), "_", "") }
	best, least := "", 1<<30
	for _, k := range known {
		if d := edits(fold(name), fold(k)); d < least {
			best, least = k, d
		}
	}
	return best, least
}

// edits counts the insertions, deletions, changes and swaps of neighbours that
// turn a into b.
func edits(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
