package detached

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestALogStaysBelowItsBoundAndKeepsTheLastWords(t *testing.T) {
	file, err := os.OpenFile(filepath.Join(t.TempDir(), "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	log := &Log{file: file, max: 1000}
	for i := range 500 {
		if _, err := fmt.Fprintf(log, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file.Name())
	if err != nil || len(text) > 1000 || len(text) < 400 || !strings.HasSuffix(string(text), "line 498\nline 499\n") {
		t.Errorf("%v; %d bytes: %s", err, len(text), text)
	}
}
