package policy

import (
	"strconv"
	"strings"
	"testing"
)

// TestWhatASentenceBinds writes an operator's value with *, a bound with |, and the
// operator's word with ?.
func TestWhatASentenceBinds(t *testing.T) {
	for _, c := range []struct{ policy, about, want string }{
		{"bstrapr", "usage logs, two years", "classes.usage.keep=2y*"},
		{"bstrapr", "billing, seven years, for tax", "classes.billing.keep=7y"},
		{"bstrapr", "not meant for people under 18", "minors.under=18"},
		{"bstrapr", "deletion can be asked for at any time", ""},
		{"infratrace", "gone in 30 days once the account is deleted, but for what the law demands", "classes.request.within=30d classes.audit.within=30d classes.security.within=30d " +
			"classes.logs.within=30d classes.account.within=30d classes.workspace_metadata.within=30d classes.billing.within=30d classes.support.within=30d erasure.primary=30d"},
		{"daestro", "out of the primary systems 7 days after the request to delete", "classes.request.within=7d classes.audit.within=7d classes.security.within=7d " +
			"classes.jobs.sooner.within=7d classes.account.within=7d classes.workspace_metadata.within=7d classes.billing.within=7d classes.support.within=7d erasure.primary=7d"},
		{"daestro", "how long logs stay can depend on the plan", "classes.jobs.keep.free=14d* classes.jobs.keep.pro=30d* classes.jobs.keep.enterprise=90d*"},
		{"daestro", "requests are handled in reasonable time, done everywhere in 45 days", "erasure.everywhere=45d rights.respond=?*"},
		{"itskode", "logs of builds and requests, 14 to 90 days by plan", "classes.request.keep.free=14d* classes.request.keep.pro=30d* classes.request.keep.enterprise=90d* " +
			"classes.request.keep.bounds=14d*| classes.request.keep.bounds=90d*| classes.logs.keep.free=14d* classes.logs.keep.pro=30d* classes.logs.keep.enterprise=90d* " +
			"classes.logs.keep.bounds=14d*| classes.logs.keep.bounds=90d*| classes.audit_traced.keep=90d*"},
		{"itskode", "one can delete deployments, logs and projects oneself; backups may lag", "erasure.everywhere=?* operator.backup_max_age.value=30d*"},
	} {
		var got []string
		for _, s := range example(t, c.policy).Sentences {
			if s.About != c.about {
				continue
			}
			for _, v := range s.Values {
				value := v.Period.String()
				switch {
				case v.Age > 0:
					value = strconv.Itoa(v.Age)
				case v.Period == Period{}:
					value = "?"
				}
				if v.Operator {
					value += "*"
				}
				if v.Bound {
					value += "|"
				}
				if anchored := strings.Contains(v.Path, "within"); anchored != (v.From != "") {
					t.Errorf("%s: %s counts from %q", c.policy, v.Path, v.From)
				}
				if v.Line == 0 {
					t.Errorf("%s: %s stands in line %d", c.policy, v.Path, v.Line)
				}
				got = append(got, v.Path+"="+value)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s, %s: got %s", c.policy, c.about, strings.Join(got, " "))
		}
	}
}
