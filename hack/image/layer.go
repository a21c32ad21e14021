package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// layer is a file system as an image carries it.
type layer struct {
	descriptor v1.Descriptor // of the compressed archive
	diffID     digest.Digest // of the archive itself
}

// writeLayer packs a folder into the blobs. What comes out depends on the names, contents and permissions of the files
// alone: all belong to root and have the same time.
func writeLayer(b *blobs, folder string, at time.Time) (l layer, err error) {
	w, err := b.create()
	if err != nil {
		return l, err
	}
	defer w.discard()
	plain := sha256.New()
	packed, err := gzip.NewWriterLevel(w, gzip.DefaultCompression)
	if err != nil {
		return l, fmt.Errorf("start the compression: %w", err)
	}
	archive := tar.NewWriter(io.MultiWriter(packed, plain))
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error { // in the order of names
		if err != nil || path == folder {
			return err
		}
		return pack(archive, folder, path, entry, at)
	})
	if err = errors.Join(err, archive.Close(), packed.Close()); err != nil {
		return l, fmt.Errorf("pack %s: %w", folder, err)
	}
	l.descriptor, err = w.commit(v1.MediaTypeImageLayerGzip)
	l.diffID = digest.NewDigest(digest.SHA256, plain)
	return l, err
}

func pack(archive *tar.Writer, folder, path string, entry fs.DirEntry, at time.Time) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	target := ""
	switch info.Mode().Type() {
	case 0, fs.ModeDir:
	case fs.ModeSymlink:
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s is neither file, folder nor link", path)
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return fmt.Errorf("describe %s: %w", path, err)
	}
	name, err := filepath.Rel(folder, path)
	if err != nil {
		return fmt.Errorf("name %s: %w", path, err)
	}
	if info.IsDir() {
		name += "/"
	}
	// Anew, so that nothing of the machine that packs gets in.
	header = &tar.Header{Typeflag: header.Typeflag, Name: name, Linkname: target, Size: header.Size, Mode: header.Mode & 0o7777, ModTime: at}
	if err := archive.WriteHeader(header); err != nil {
		return fmt.Errorf("pack %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(archive, f)
	return errors.Join(err, f.Close())
}
