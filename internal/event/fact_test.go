package event

import "testing"

// No two members have one subject, whatever the ids are.
func TestMember(t *testing.T) {
	if got := Member("org_7", "user:u_1"); got != "member:org_7/user:u_1" {
		t.Errorf("got %s", got)
	}
	ids := []string{"a", "a/", "/a", "a/user:b", "a//user:b", "/", "//", "user:b", "a/user:", "a//"}
	whose := map[string][2]string{}
	for _, organization := range ids {
		for _, person := range ids {
			subject, is := Member(organization, "user:"+person), [2]string{organization, person}
			if was, taken := whose[subject]; taken {
				t.Errorf("%q and %q are both %s", was, is, subject)
			}
			whose[subject] = is
		}
	}
}
