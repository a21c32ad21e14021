// Package snapshot keeps the agent's last good input on disk, so that a node that starts without its source comes back
// to the same state.
package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/ravencni/raven/pkg/agent/source"
	"github.com/ravencni/raven/pkg/atomicfile"
	"github.com/ravencni/raven/pkg/topology"
)

// Version of the file's layout. A file of another version is not read.
const Version = 1

// FileName is the snapshot's name below the state folder.
const FileName = "snapshot.json"

// envelope is the file.
type envelope struct {
	Version int `json:"version"`
	// Saved is when the content changed last.
	Saved time.Time `json:"saved"`
	// Checksum is the SHA-256 of Content, in hexadecimal.
	Checksum string          `json:"sha256"`
	Content  json.RawMessage `json:"content"`
}

type content struct {
	State  *topology.State `json:"state"`
	Throws []netip.Addr    `json:"throws,omitempty"`
}

// Store reads and writes one snapshot. Its methods must be called from one goroutine at a time.
type Store struct {
	path  string
	sum   string // checksum of what the file holds
	saved time.Time
}

// Open names the snapshot of a state folder; nothing is read yet.
func Open(stateDir string) *Store { return &Store{path: filepath.Join(stateDir, FileName)} }

// Load returns the last good input, or nil where there is none. A file that cannot be used is renamed to
// snapshot.json.bad and reported in err; starting without a snapshot is then right.
func (s *Store) Load() (*source.Input, error) {
	raw, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the snapshot: %w", err)
	}
	env, c, err := decode(raw)
	if err != nil {
		bad := s.path + ".bad"
		if moved := os.Rename(s.path, bad); moved != nil {
			return nil, fmt.Errorf("snapshot %s cannot be used: %w; and it cannot be put aside: %w", s.path, err, moved)
		}
		return nil, fmt.Errorf("snapshot %s cannot be used and was put aside as %s: %w", s.path, bad, err)
	}
	s.sum, s.saved = env.Checksum, env.Saved
	return &source.Input{State: *c.State, Throws: c.Throws}, nil
}

// Read returns the last good input of a state folder and when it was saved, and changes nothing, for readers beside the
// agent. The error is fs.ErrNotExist where there is none.
func Read(stateDir string) (*source.Input, time.Time, error) {
	raw, err := os.ReadFile(filepath.Join(stateDir, FileName))
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read the snapshot: %w", err)
	}
	env, c, err := decode(raw)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("use the snapshot in %s: %w", stateDir, err)
	}
	return &source.Input{State: *c.State, Throws: c.Throws}, env.Saved, nil
}

func decode(raw []byte) (*envelope, *content, error) {
	var env envelope
	if err := json.Unmarshal(raw, &env); err != nil {
		return nil, nil, fmt.Errorf("parse it: %w", err)
	}
	if env.Version != Version {
		return nil, nil, fmt.Errorf("it has version %d; this agent knows version %d", env.Version, Version)
	}
	if sum := checksum(env.Content); sum != env.Checksum {
		return nil, nil, fmt.Errorf("its checksum is %s and its content's %s", env.Checksum, sum)
	}
	var c content
	if err := json.Unmarshal(env.Content, &c); err != nil {
		return nil, nil, fmt.Errorf("parse its content: %w", err)
	}
	if c.State == nil {
		return nil, nil, errors.New("it has no state")
	}
	return &env, &c, nil
}

// Save writes the input if it differs from what the file holds, and reports whether it wrote. After a power failure
// the file holds either the old content or the new.
func (s *Store) Save(in source.Input, now time.Time) (bool, error) {
	raw, err := json.Marshal(content{State: &in.State, Throws: in.Throws})
	if err != nil {
		return false, fmt.Errorf("encode the snapshot: %w", err)
	}
	sum := checksum(raw)
	if sum == s.sum {
		return false, nil
	}
	file, err := json.Marshal(envelope{Version: Version, Saved: now.UTC(), Checksum: sum, Content: raw})
	if err != nil {
		return false, fmt.Errorf("encode the snapshot: %w", err)
	}
	if err := atomicfile.Write(s.path, append(file, '\n'), 0o600); err != nil {
		return false, fmt.Errorf("save the snapshot: %w", err)
	}
	s.sum, s.saved = sum, now
	return true, nil
}

// Saved is when the content changed last; zero where there is no snapshot.
func (s *Store) Saved() time.Time { return s.saved }

// Remove deletes the snapshot, if there is one.
func (s *Store) Remove() error {
	s.sum, s.saved = "", time.Time{}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the snapshot: %w", err)
	}
	return nil
}

// checksum is of the compact form, so that it does not depend on how the envelope was laid out.
func checksum(raw []byte) string {
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		b.Reset()
		b.Write(raw)
	}
	sum := sha256.Sum256(b.Bytes())
	return hex.EncodeToString(sum[:])
}
