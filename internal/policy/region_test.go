package policy

import (
	"strings"
	"testing"
)

func TestRegionsOfEachPolicy(t *testing.T) {
	for name, want := range map[string]struct{ allowed, refused string }{
		"bstrapr": {"DE CA US EU", ""}, "infratrace": {"DE CA US EU", ""}, "abstra": {"DE CA US EU", ""}, "itskode": {"DE CA US EU", ""},
		"daestro": {"CA IN", "DE FR GR HR EU US GB CH"},
	} {
		r := example(t, name).Regions
		for place := range strings.FieldsSeq(want.allowed) {
			if !r.Allows(place) {
				t.Errorf("%s: %s is refused, want it allowed", name, place)
			}
		}
		for place := range strings.FieldsSeq(want.refused) {
			if r.Allows(place) {
				t.Errorf("%s: %s is allowed, want it refused", name, place)
			}
		}
	}
}

func TestTheUnionIsItsMemberStates(t *testing.T) {
	for _, c := range []struct {
		name             string
		r                Regions
		allowed, refused string
	}{
		{"only the union", Regions{Only: []string{"EU"}}, "DE FR EU", "GB CH NO US"},
		{"only one member: the union may be another", Regions{Only: []string{"DE"}}, "DE", "FR EU"},
		{"never the union", Regions{Never: []string{"EU"}}, "GB CH NO US", "DE FR EU"},
		{"never one member: the union may be that one", Regions{Never: []string{"HU"}}, "DE US", "HU EU"},
		{"the union but one", Regions{Only: []string{"EU"}, Never: []string{"HU"}}, "DE", "HU EU US"},
	} {
		for place := range strings.FieldsSeq(c.allowed) {
			if !c.r.Allows(place) {
				t.Errorf("%s: %s is refused", c.name, place)
			}
		}
		for place := range strings.FieldsSeq(c.refused) {
			if c.r.Allows(place) {
				t.Errorf("%s: %s is allowed", c.name, place)
			}
		}
	}
	n := 0
	for _, c := range members {
		if IsRegion(c) && !strings.Contains("UK EL", c) {
			n++
		}
	}
	if n != 27 || len(countries) != 249 || IsRegion("UK") || IsRegion("EL") || IsRegion("de") || IsRegion("") || !IsRegion("EU") {
		t.Errorf("got %d member states and %d countries, want 27 and 249 by the codes of ISO 3166-1", n, len(countries))
	}
}
