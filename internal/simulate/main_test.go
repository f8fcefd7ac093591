package main

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain also is the engine's process.
func TestMain(m *testing.M) {
	root = "../../"
	if dir := os.Getenv(engineEnv); dir != "" {
		if err := beEngine(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}
