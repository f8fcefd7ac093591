package event

import "strings"

// A row that several people share can outlive one of them: a copy without that
// person takes its place, in a class of its own, because ClickHouse makes one of two
// rows with one key in one partition. A copy that loses one more person goes to the
// other of two such classes, for the same reason.
const (
	anonymised = "/anonymised@"
	again      = "/anonymised-again@"
)

// Anonymised returns the stored class of the copies of a stored class's rows. Of a
// class of copies it is the other one.
func Anonymised(retention string) string {
	base := Original(retention)
	to := anonymised
	if strings.Contains(retention, anonymised) {
		to = again
	}
	return strings.Replace(base, "@", to, 1)
}

// Original returns the stored class that copies of a class were made from; of
// every other class it is the class itself.
func Original(retention string) string {
	retention = strings.Replace(retention, anonymised, "@", 1)
	return strings.Replace(retention, again, "@", 1)
}

// Copies returns the two classes of the copies of a stored class. A class with a
// tier has none.
func Copies(retention string) []string {
	base := Original(retention)
	if class, _, _ := strings.Cut(base, "@"); strings.Contains(class, "/") {
		return nil
	}
	first := Anonymised(base)
	return []string{first, Anonymised(first)}
}
