package wireguard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
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
	err = createDurably(path, []byte(key.String()+"\n"))
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

// createDurably makes path with mode 0600 and the given content at once and for good: it is never seen half written,
// survives a power cut once made, and fails with fs.ErrExist where path exists.
func createDurably(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // O_EXCL, 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	// A rename would overwrite; a hard link does not.
	if err := os.Link(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// replaceFile writes path by way of a temporary file, so that a reader sees the old content or the new.
func replaceFile(path string, content []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
