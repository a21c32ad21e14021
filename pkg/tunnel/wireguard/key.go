package wireguard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/ravencni/raven/pkg/atomicfile"
)

// keyFile holds the private key in base64, as "wg genkey" prints it, inside the state folder.
const keyFile = "wireguard.key"

// loadKey returns the private key below dir and makes one where there is none. It never replaces a file that is
// there, readable or not: a new key would cut this node off from every peer that knows the old one.
func loadKey(dir string) (wgtypes.Key, error) {
	path := filepath.Join(dir, keyFile)
	key, err := readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = wgtypes.GeneratePrivateKey(); err != nil {
		return wgtypes.Key{}, fmt.Errorf("make a private key: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return wgtypes.Key{}, fmt.Errorf("make the state folder: %w", err)
	}
	err = atomicfile.Create(path, []byte(key.String()+"\n"), 0o600)
	if errors.Is(err, fs.ErrExist) {
		return readKey(path) // somebody was faster: theirs counts
	}
	if err != nil {
		return wgtypes.Key{}, fmt.Errorf("keep the private key in %s: %w", path, err)
	}
	return key, nil
}

func readKey(path string) (wgtypes.Key, error) {
	info, err := os.Stat(path)
	if err != nil {
		return wgtypes.Key{}, fmt.Errorf("read the private key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(path, 0o600); err != nil {
			return wgtypes.Key{}, fmt.Errorf("close the private key %s to others: %w", path, err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return wgtypes.Key{}, fmt.Errorf("read the private key: %w", err)
	}
	key, err := wgtypes.ParseKey(strings.TrimSpace(string(text)))
	if err == nil && key == (wgtypes.Key{}) {
		err = errors.New("it is all zeros")
	}
	if err != nil {
		return wgtypes.Key{}, fmt.Errorf("the private key file %s is damaged: %w; restore it from a backup, or delete it "+
			"to have a new key made, which the peers learn from this node's TunnelEndpoint", path, err)
	}
	return key, nil
}

// replaceFile replaces a file of the state folder, which is made where it is missing.
func replaceFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the state folder: %w", err)
	}
	return atomicfile.Write(path, content, 0o600)
}
