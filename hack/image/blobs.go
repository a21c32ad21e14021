package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// blobs is the folder blobs/sha256 of an OCI image layout.
type blobs struct{ folder string }

func newBlobs(layout string) (*blobs, error) {
	b := &blobs{folder: filepath.Join(layout, v1.ImageBlobsDir, "sha256")}
	if err := os.MkdirAll(b.folder, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of blobs: %w", err)
	}
	return b, nil
}

// blob is being written; its name is known at the end.
type blob struct {
	file *os.File
	sum  hash.Hash
	size int64
	into string
}

func (b *blobs) create() (*blob, error) {
	f, err := os.CreateTemp(b.folder, ".new-")
	if err != nil {
		return nil, fmt.Errorf("make a blob: %w", err)
	}
	return &blob{file: f, sum: sha256.New(), into: b.folder}, nil
}

// Write implements io.Writer.
func (w *blob) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	w.sum.Write(p[:n])
	w.size += int64(n)
	return n, err
}

// commit gives the blob its name.
func (w *blob) commit(mediaType string) (v1.Descriptor, error) {
	d := digest.NewDigest(digest.SHA256, w.sum)
	err := errors.Join(w.file.Chmod(0o644), w.file.Close())
	if err == nil {
		err = os.Rename(w.file.Name(), filepath.Join(w.into, d.Encoded()))
	}
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("store a blob: %w", err)
	}
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: w.size}, nil
}

// discard removes what was not committed.
func (w *blob) discard() {
	_ = w.file.Close() // closed already where it was committed
	if err := os.Remove(w.file.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
	}
}

// writeJSON stores a document.
func (b *blobs) writeJSON(mediaType string, document any) (v1.Descriptor, error) {
	w, err := b.create()
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer w.discard()
	if err := json.NewEncoder(w).Encode(document); err != nil {
		return v1.Descriptor{}, fmt.Errorf("write a document: %w", err)
	}
	return w.commit(mediaType)
}
