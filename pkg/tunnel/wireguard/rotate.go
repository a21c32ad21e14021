package wireguard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/ravencni/raven/pkg/tunnel"
)

const (
	// nextKeyFile holds the private key that will replace the present one, in the same form.
	nextKeyFile = "wireguard.key.next"
	// rotationFile holds the request that the next key was made for, or after the switch the present one.
	rotationFile = "wireguard.rotation"
)

var _ tunnel.KeyRotator = (*Driver)(nil)

// NextKey returns the public half of the next key in base64; empty where the key was changed for this request before.
// The next key is written first and the request after it, so that a crash in between makes another next key, which
// nobody has heard of yet, and a crash after it finds both.
func (d *Driver) NextKey(_ context.Context, request string) (string, error) {
	record := filepath.Join(d.opts.StateDir, rotationFile)
	done, err := os.ReadFile(record)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read which change of the key was made last: %w", err)
	}
	path := filepath.Join(d.opts.StateDir, nextKeyFile)
	if err == nil && string(done) == request {
		key, err := readKey(path)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return key.PublicKey().String(), err
	}
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return "", fmt.Errorf("make the next private key: %w", err)
	}
	if err := replaceFile(path, []byte(key.String()+"\n")); err != nil {
		return "", fmt.Errorf("keep the next private key: %w", err)
	}
	if err := replaceFile(record, []byte(request)); err != nil {
		return "", fmt.Errorf("keep what the next private key was made for: %w", err)
	}
	return key.PublicKey().String(), nil
}

// SwitchKey puts the next key in the present one's place, with one rename. Without a next key it does nothing.
func (d *Driver) SwitchKey(context.Context) error {
	next, present := filepath.Join(d.opts.StateDir, nextKeyFile), filepath.Join(d.opts.StateDir, keyFile)
	if _, err := readKey(next); err != nil { // a damaged one must not replace one that works
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := os.Rename(next, present); err != nil {
		return fmt.Errorf("put the next private key in place: %w", err)
	}
	return nil
}
