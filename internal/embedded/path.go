package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// libraryName is where `make fetch` puts the engine, inside the cache folder.
var libraryName = filepath.Join("engine", "libchdb.so")

// LibraryPath finds the engine's library: CHDB_LIB when it is set, else
// engine/libchdb.so in CacheDir. The error is a sentence that says what to set.
func LibraryPath() (string, error) {
	if path := os.Getenv("CHDB_LIB"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("find ClickHouse engine: CHDB_LIB is set to %s: %w", path, err)
		}
		return path, nil
	}
	cache, err := CacheDir()
	if err != nil {
		return "", fmt.Errorf("find ClickHouse engine: %w; set CHDB_LIB to the path of libchdb.so", err)
	}
	path := filepath.Join(cache, libraryName)
	if _, err := os.Stat(path); err != nil {
		return "", missingLibrary(path)
	}
	return path, nil
}

// CacheDir is the folder of what `make fetch` brings: .cache in the checkout that
// holds the working directory.
func CacheDir() (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, ".cache"), nil
}

func missingLibrary(path string) error {
	return fmt.Errorf("find ClickHouse engine: there is no %s: run `make fetch`, or set CHDB_LIB to the path of libchdb.so: %w", path, os.ErrNotExist)
}

// moduleRoot is the nearest folder at or above the working directory that has a
// go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find checkout: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("the working directory is not in a checkout of Lethe")
		}
		dir = parent
	}
}
