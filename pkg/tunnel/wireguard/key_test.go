package wireguard

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestAKeyIsMadeOnceAndKeptFromOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	first, err := loadKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := loadKey(dir)
	if err != nil || second != first {
		t.Errorf("the second load gives %v, %v", second, err)
	}
	info, err := os.Stat(filepath.Join(dir, keyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file is %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(filepath.Join(dir, keyFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if third, err := loadKey(dir); err != nil || third != first {
		t.Errorf("the third load gives %v, %v", third, err)
	}
	if info, err := os.Stat(filepath.Join(dir, keyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("an open key file stays %v, %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("the folder holds %v, %v", left, err)
	}
}

func TestKeysMadeAtTheSameTimeAreOneKey(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	keys := make([]string, 16)
	for i := range keys {
		wg.Go(func() {
			key, err := loadKey(dir)
			if err != nil {
				t.Error(err)
			}
			keys[i] = key.String()
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k != keys[0] {
			t.Fatalf("two keys: %s and %s", k, keys[0])
		}
	}
}

func TestADamagedKeyFileIsNamedAndNeverOverwritten(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "no base64": "!", "too short": "AAAA", "all zeros": strings.Repeat("A", 43) + "=",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, keyFile)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := New(Options{StateDir: dir})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.PublicKey(context.Background()); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "backup") {
				t.Errorf("PublicKey: %v", err)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != content {
				t.Errorf("the file now holds %q, %v", got, err)
			}
		})
	}
}
