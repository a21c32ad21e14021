// Package oci reads the OCI archives that make image writes, as a container runtime would.
package oci

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one platform's image of an archive.
type Image struct {
	Name     string // as containerd names it
	Config   v1.Image
	Manifest v1.Manifest
	layout   string
}

// Open unpacks an archive into dir, an empty folder, checks the digest of every blob, and returns the images by
// architecture.
func Open(archive, dir string) (map[string]Image, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, fmt.Errorf("open the archive: %w", err)
	}
	defer f.Close()
	if err := unpack(f, dir); err != nil {
		return nil, fmt.Errorf("unpack %s: %w", archive, err)
	}
	var layout v1.ImageLayout
	if err := readJSON(filepath.Join(dir, v1.ImageLayoutFile), &layout); err != nil {
		return nil, err
	}
	if layout.Version != v1.ImageLayoutVersion {
		return nil, fmt.Errorf("the layout's version is %q", layout.Version)
	}
	var top, whole v1.Index
	if err := readJSON(filepath.Join(dir, v1.ImageIndexFile), &top); err != nil {
		return nil, err
	}
	if len(top.Manifests) != 1 {
		return nil, fmt.Errorf("the archive names %d images, want one", len(top.Manifests))
	}
	if err := readBlob(dir, top.Manifests[0], &whole); err != nil {
		return nil, err
	}
	images := map[string]Image{}
	for _, d := range whole.Manifests {
		i := Image{layout: dir, Name: top.Manifests[0].Annotations["io.containerd.image.name"]}
		if err := readBlob(dir, d, &i.Manifest); err != nil {
			return nil, err
		}
		if err := readBlob(dir, i.Manifest.Config, &i.Config); err != nil {
			return nil, err
		}
		if d.Platform == nil || d.Platform.Architecture != i.Config.Architecture || d.Platform.OS != i.Config.OS {
			return nil, fmt.Errorf("the index says platform %v, the image %s/%s", d.Platform, i.Config.OS, i.Config.Architecture)
		}
		images[i.Config.Architecture] = i
	}
	return images, nil
}

// Unpack lays the image's layers into dir, an empty folder, and checks what each layer holds against the configuration.
func (i Image) Unpack(dir string) error {
	if len(i.Manifest.Layers) != len(i.Config.RootFS.DiffIDs) {
		return fmt.Errorf("%d layers, %d in the configuration", len(i.Manifest.Layers), len(i.Config.RootFS.DiffIDs))
	}
	for n, d := range i.Manifest.Layers {
		blob, err := openBlob(i.layout, d)
		if err != nil {
			return err
		}
		packed, err := gzip.NewReader(blob)
		if err != nil {
			return errors.Join(fmt.Errorf("read layer %d: %w", n, err), blob.Close())
		}
		sum := sha256.New()
		err = unpack(io.TeeReader(packed, sum), dir)
		_, restErr := io.Copy(sum, packed) // what follows the archive's end
		if err = errors.Join(err, restErr, blob.Close()); err != nil {
			return fmt.Errorf("unpack layer %d: %w", n, err)
		}
		if got := fmt.Sprintf("sha256:%x", sum.Sum(nil)); got != i.Config.RootFS.DiffIDs[n].String() {
			return fmt.Errorf("layer %d is %s, not %s", n, got, i.Config.RootFS.DiffIDs[n])
		}
	}
	return nil
}

func openBlob(layout string, d v1.Descriptor) (*os.File, error) {
	path := filepath.Join(layout, v1.ImageBlobsDir, d.Digest.Algorithm().String(), d.Digest.Encoded())
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open a blob: %w", err)
	}
	verifier := d.Digest.Verifier()
	size, err := io.Copy(verifier, f)
	if err == nil && (size != d.Size || !verifier.Verified()) {
		err = fmt.Errorf("blob %s is not what it says, or not %d bytes", d.Digest, d.Size)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func readBlob(layout string, d v1.Descriptor, into any) error {
	f, err := openBlob(layout, d)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := json.NewDecoder(f).Decode(into); err != nil {
		return fmt.Errorf("decode %s: %w", d.Digest, err)
	}
	return nil
}

func readJSON(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the layout: %w", err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	return nil
}

// unpack writes files, folders and symbolic links below dir. A name that leads out of it is refused.
func unpack(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open the folder: %w", err)
	}
	defer root.Close()
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" {
			return fmt.Errorf("%s belongs to %d:%d %s, not to root", h.Name, h.Uid, h.Gid, h.Uname)
		}
		if err := unpackOne(root, h, archive); err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
	}
}

func unpackOne(root *os.Root, h *tar.Header, content io.Reader) error {
	name := strings.TrimSuffix(h.Name, "/")
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, os.FileMode(h.Mode&0o777))
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Close())
	}
	return fmt.Errorf("it is of type %q", h.Typeflag)
}
