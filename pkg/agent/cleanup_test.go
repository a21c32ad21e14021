package agent

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestTheStateIsRemovedWithWhatAKilledAgentLeftOfIt(t *testing.T) {
	dir := t.TempDir()
	foreign := []string{".hidden", "notes.txt"}
	for _, name := range append([]string{
		"snapshot.json", "snapshot.json.bad", ".snapshot.json.123456", "wireguard.key", ".wireguard.key.123456",
		"wireguard.endpoints.json", ".wireguard.endpoints.json.1", "wireguard-device.log", ".sysctls.json.42",
	}, foreign...) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	said := 0
	if err := RemoveState(dir, func(string) { said++ }); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if !slices.Equal(left, foreign) || said != 9 {
		t.Errorf("left: %q, told of %d files; want %q and 9", left, said, foreign)
	}
}
