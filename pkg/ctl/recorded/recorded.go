// Package recorded compares a test's output with a file that was recorded before (a golden file).
package recorded

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
	"unicode/utf8"

	"github.com/ravencni/raven/pkg/ctl/table"
)

// JSON fails the test where value is not in JSON what the file holds: programs read these names. RAVEN_GOLDEN=write
// records the file anew.
func JSON(t *testing.T, file string, value any) {
	t.Helper()
	got, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	same(t, file, append(got, '\n'))
}

func same(t *testing.T, file string, got []byte) {
	t.Helper()
	if os.Getenv("RAVEN_GOLDEN") == "write" {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("not as recorded in %s (RAVEN_GOLDEN=write records it anew):\n%s", file, got)
	}
}

// Compare fails the test where got is not what the file holds, or a line is wider than tables may be. The environment's
// RAVEN_GOLDEN=write records the file anew.
func Compare(t *testing.T, file string, got []byte) {
	t.Helper()
	same(t, file, got)
	for line := range bytes.Lines(got) {
		if n := utf8.RuneCount(bytes.TrimRight(line, "\n")); n > table.Width {
			t.Errorf("a line of %d columns: %s", n, line)
		}
	}
}
