package fetch

import (
	"archive/tar"
	"compress/gzip"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/oschwald/geoip2-golang/v2"
)

func TestConvertMakesWhatGeoip2Reads(t *testing.T) {
	dir := t.TempDir()
	flat := filepath.Join(dir, "flat.mmdb")
	writeFlat(t, flat, map[string]string{
		"203.0.113.0/24":  "NL",
		"2001:db8::/32":   "DE",
		"198.51.100.0/25": "", // a record without a country is left out
	})
	to := filepath.Join(dir, "country.mmdb")
	if err := Convert(flat, to); err != nil {
		t.Fatal(err)
	}
	db, err := geoip2.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for addr, want := range map[string]string{"203.0.113.9": "NL", "2001:db8::7": "DE", "198.51.100.1": "", "192.0.2.1": ""} {
		got, err := db.Country(netip.MustParseAddr(addr))
		if err != nil {
			t.Fatal(err)
		}
		if got.Country.ISOCode != want {
			t.Errorf("country of %s: got %q, want %q", addr, got.Country.ISOCode, want)
		}
	}
}

func TestConvertRefusesAFileWithoutCountries(t *testing.T) {
	dir := t.TempDir()
	flat := filepath.Join(dir, "flat.mmdb")
	writeFlat(t, flat, map[string]string{"203.0.113.0/24": ""})
	if err := Convert(flat, filepath.Join(dir, "out")); err == nil || !strings.Contains(err.Error(), "no country_code") {
		t.Errorf("got %v, want an error that says that no record has a country_code", err)
	}
}

func TestVerifyRefusesAnotherTarball(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.tgz")
	if err := os.WriteFile(file, []byte("not the engine"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := pkg{name: "x", version: "1", sha256: strings.Repeat("0", 64)}.verify(file)
	if err == nil || !strings.Contains(err.Error(), "nothing was installed") {
		t.Errorf("got %v, want a checksum error", err)
	}
}

func TestExtract(t *testing.T) {
	dir := t.TempDir()
	tgz := filepath.Join(dir, "p.tgz")
	f, err := os.Create(tgz)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	w := tar.NewWriter(z)
	for name, body := range map[string]string{"package/README.md": "no", "package/lib.so": "yes"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	for _, close := range []func() error{w.Close, z.Close, f.Close} {
		if err := close(); err != nil {
			t.Fatal(err)
		}
	}
	to := filepath.Join(dir, "lib.so")
	if err := extract(tgz, "package/lib.so", to, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(to); string(got) != "yes" {
		t.Errorf("extracted %q, want %q", got, "yes")
	}
	if err := extract(tgz, "package/none", to, 0o755); err == nil || !strings.Contains(err.Error(), "holds no package/none") {
		t.Errorf("got %v, want an error that names the missing member", err)
	}
}

func TestFilesLeavesAloneWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	all, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", "") // npm cannot be found: fetching anything would fail
	for _, p := range all {
		t.Setenv(p.env, "")
		target := filepath.Join(dir, p.target)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, body := range map[string]string{target: "x", target + ".version": p.stamp()} {
			if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	log := slog.New(slog.DiscardHandler)
	if err := Files(t.Context(), dir, log); err != nil {
		t.Errorf("with both files there: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, CountryFile)); err != nil {
		t.Fatal(err)
	}
	err = Files(t.Context(), dir, log)
	if err == nil || !strings.Contains(err.Error(), "npm is not installed") || !strings.Contains(err.Error(), "GEOIP_DB") {
		t.Errorf("without npm: got %v, want a sentence that names npm and GEOIP_DB", err)
	}
}

func writeFlat(t *testing.T, file string, countries map[string]string) {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "flat", IncludeReservedNetworks: true, RecordSize: 24})
	if err != nil {
		t.Fatal(err)
	}
	for prefix, country := range countries {
		n := netip.MustParsePrefix(prefix)
		record := mmdbtype.Map{"other": mmdbtype.String("x")}
		if country != "" {
			record["country_code"] = mmdbtype.String(country)
		}
		if err := tree.Insert(ipNet(n), record); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
