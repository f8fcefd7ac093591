package policy

import (
	"slices"
	"strings"
)

// EuropeanUnion is the one name of a region that is not a country: that of its member states.
const EuropeanUnion = "EU"

var members = strings.Fields("AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK")

// countries are the codes of ISO 3166-1. A code that is not one of them would slip past what a
// text refuses: UK is not GB.
var countries = strings.Fields("" +
	"AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ " +
	"BL BM BN BO BQ BR BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR " +
	"CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR " +
	"GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU " +
	"ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ " +
	"LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ " +
	"MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF " +
	"PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI " +
	"SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR " +
	"TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW")

// IsRegion reports whether a name is that of a country, two capital letters, or of the
// European Union.
func IsRegion(name string) bool {
	return name == EuropeanUnion || slices.Contains(countries, name)
}

// Places returns every name of a region.
func Places() []string { return append([]string{EuropeanUnion}, countries...) }

// Inside reports whether whatever lies in a place lies in a region. Both are countries or the
// European Union, which lies inside itself alone.
func Inside(place, region string) bool {
	return place == region || region == EuropeanUnion && slices.Contains(members, place)
}

// Silent reports whether the text leaves it open where data lie, whatever it lets a tenant choose.
func (r Regions) Silent() bool { return len(r.Only) == 0 && len(r.Never) == 0 }

// Allows reports whether data may lie in a place. A place that may be in a refused country, such
// as the European Union where one of its member states is refused, is refused too.
func (r Regions) Allows(place string) bool {
	for _, never := range r.Never {
		if Inside(place, never) || Inside(never, place) {
			return false
		}
	}
	return len(r.Only) == 0 || slices.ContainsFunc(r.Only, func(only string) bool { return Inside(place, only) })
}
