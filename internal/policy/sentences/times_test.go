package sentences

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// say writes what Times found.
func say(text string) string {
	var out []string
	for _, t := range Times(text) {
		what := text[t.Start:t.End]
		switch t.Kind {
		case Exact:
			what += "=" + t.Low.String()
		case Range:
			what += "=" + t.Low.String() + ".." + t.High.String()
		case Age:
			what += fmt.Sprintf("=age %d", t.Age)
		}
		out = append(out, what)
	}
	return strings.Join(out, "; ")
}

func TestTimes(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"kept for 30 days", "30 days=30d"},
		{"kept for 30days", "30days=30d"},
		{"purged after 30d or 24h", "30d=30d; 24h=1d"},
		{"a 30-day window", "30-day=30d"},
		{"A Thirty-Day window", "Thirty-Day=30d"},
		{"for a period of 24 months", "period; 24 months=2y"},
		{"for two (2) years", "two (2) years=2y"},
		{"for ninety (60) days", "ninety=90d; (60) days=60d"},
		{"for 1 (one) year", "1 (one) year=1y"},
		{"for forty-five days' notice", "forty-five days=45d"},
		{"one hundred and eighty days", "one hundred and eighty days=180d"},
		{"three hundred sixty-five days", "three hundred sixty-five days=365d"},
		{"a year, half a year, one and a half years", "a year=1y; half a year=6m; one and a half years=18m"},
		{"1.5 years and 1,000 days", "1.5 years=18m; 1,000 days=1000d"},
		{"two weeks, a fortnight, a quarter, a decade", "two weeks=14d; a fortnight=14d; a quarter=3m; a decade=10y"},
		{"72 hours; 36 hours; 5 minutes", "72 hours=3d; 36 hours=0d; 5 minutes=0d"},
		{"on the 30th day", "30th day=30d"},
		{"between 10 and 40 days", "10 and 40 days=10d..40d"},
		{"14-90 days, or 14 to 90 days", "14-90 days=14d..90d; 14 to 90 days=14d..90d"},
		{"14 days to 90 days", "14 days to 90 days=14d..90d"},
		{"between 2 weeks and 3 months", "2 weeks and 3 months=14d..3m"},
		{"after 30 or 90 days", "30=30d; 90 days=90d"},
		{"after 30, 60, or 90 days", "30=30d; 60=60d; 90 days=90d"},
		{"30 days or 60 days", "30 days=30d; 60 days=60d"},
		{"10 business days", "10 business days=0d"},
		{"30 calendar days, seven additional years", "30 calendar days=30d; seven additional years=7y"},
		{"90 or more days", "90 or more days=90d"},
		{"Retention (days): 30", "days): 30=30d"},
		{"for 10000000000 years", "10000000000 years=0d"},
		{"under the age of 16", "under the age of 16=age 16"},
		{"children under thirteen", "under thirteen=age 13"},
		{"18 years of age, a 16-year-old, 18 years or older", "18 years of age=age 18; 16-year-old=age 16; 18 years or older=age 18"},
		{"over 20% of users, under 100 servers, below a line", ""},
		{"as long as needed, promptly, indefinitely", "as long as; promptly; indefinitely"},
		{"a few days, several weeks", "a few days; several weeks"},
		{"while the account is active; while we strive", "while the account is active"},
		{"including but not limited to names, for a limited time", "limited"},
		{"permanently deleted, permanently stored", "permanently"},
		{"a second device, a quarter of users, 24/7 support, AES-256, ISO 27001", ""},
		{"Phone 0800 123, January 1, 2024", ""},
		{"", ""},
	} {
		if got := say(c.text); got != c.want {
			t.Errorf("%q: got %q, want %q", c.text, got, c.want)
		}
	}
}

func unknown(string) bool { return false }

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"sentences", `We keep it. "We do." (We said so!) Why? Because.`, []string{"1 We keep it.", `1 "We do."`, "1 (We said so!)", "1 Why?", "1 Because."}},
		{"no sentence ends", "See e.g. Article 3. a or Mr. Smith, U.S. Office, v1.2 at a.b@example.com: Ask; Answer", []string{"1 See e.g. Article 3. a or Mr. Smith, U.S. Office, v1.2 at a.b@example.com: Ask; Answer"}},
		{"bullets", "We keep:\n  • Names\n  - Dates: 30 days\n* Rest\n", []string{"1 We keep:", "2 Names", "3 Dates: 30 days", "4 Rest"}},
		{"blank lines", "One\r\n\r\nTwo  and\tthree\r\n", []string{"1 One", "3 Two and three"}},
		{"a full line goes on", "This line is the longest of all here\nand goes on.\nThis one stands alone\nbecause it was short", []string{"1 This line is the longest of all here and goes on.", "3 This one stands alone", "4 because it was short"}},
		{"a full line ends", "This is the longest line of the text.\n7. Next", []string{"1 This is the longest line of the text.", "2 7.", "2 Next"}},
		{"no line ends in a time", "Gone in 30\ndays\nThis is a much longer line than the others\n\nas long\n\nas we like", []string{"1 Gone in 30 days", "3 This is a much longer line than the others", "5 as long as we like"}},
		{"nothing", "\n \n", nil},
	} {
		var got []string
		for _, s := range Split(c.text, unknown) {
			got = append(got, fmt.Sprintf("%d %s", s.Line, s.Text))
		}
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// FuzzSplit holds that no text makes the splitter panic, that no word is lost, and that
// what is found lies in its sentence.
func FuzzSplit(f *testing.F) {
	own, err := os.ReadFile("testdata/harbour.txt")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(own))
	for _, s := range []string{"half", "a half days", "and a half years", ") days", "(90) days", "- days 3 - 4 days", "30\n\ndays", "\xff 3 days\xc2", "(or days", "1,2.3 weeks to years old", "a\u00a0hundred\u2028and days"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines, line := strings.Count(text, "\n")+1, 0
		var words []string
		for _, s := range Split(text, unknown) {
			if s.Text == "" || s.Text != Fold(s.Text) || s.Line < max(line, 1) || s.Line > lines || len(s.SHA256) != 64 {
				t.Fatalf("got %+v", s)
			}
			line = s.Line
			words = append(words, strings.Fields(s.Text)...)
			end := 0
			for _, at := range s.Times {
				if at.Start < end || at.End <= at.Start || at.End > len(s.Text) {
					t.Fatalf("got %+v in %q", at, s.Text)
				}
				end = at.End
			}
		}
		var want []string
		for l := range strings.SplitSeq(text, "\n") {
			fields := strings.Fields(l)
			if len(fields) > 0 && isBullet(fields[0]) {
				fields = fields[1:]
			}
			want = append(want, fields...)
		}
		if strings.Join(words, " ") != strings.Join(want, " ") {
			t.Fatalf("got the words %q, want %q", words, want)
		}
	})
}
