package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// nameForContainerd is the annotation by which containerd names what it imports.
const nameForContainerd = "io.containerd.image.name"

// run writes the archive.
func (o *options) run() (err error) {
	layout, err := os.MkdirTemp(filepath.Dir(o.out), ".layout-")
	if err != nil {
		return fmt.Errorf("make the folder of the layout: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(layout)) }()
	b, err := newBlobs(layout)
	if err != nil {
		return err
	}
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Annotations: o.annotations()}
	for _, p := range o.platforms {
		d, err := o.writeImage(b, p)
		if err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, d)
	}
	whole, err := b.writeJSON(v1.MediaTypeImageIndex, index)
	if err != nil {
		return err
	}
	_, tag, _ := cutTag(o.name)
	whole.Annotations = map[string]string{v1.AnnotationRefName: tag, nameForContainerd: fullName(o.name)}
	top := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{whole}}
	for file, document := range map[string]any{v1.ImageIndexFile: top, v1.ImageLayoutFile: v1.ImageLayout{Version: v1.ImageLayoutVersion}} {
		text, err := json.Marshal(document)
		if err == nil {
			err = os.WriteFile(filepath.Join(layout, file), text, 0o644)
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", file, err)
		}
	}
	return writeArchive(layout, o.out, o.at)
}

// fullName is the name with the registry that Kubernetes takes for granted where there is none.
func fullName(name string) string {
	first, _, hasFolder := strings.Cut(name, "/")
	if hasFolder && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return name
	}
	if !hasFolder {
		name = "library/" + name
	}
	return "docker.io/" + name
}

func (o *options) annotations() map[string]string {
	_, tag, _ := cutTag(o.name)
	a := map[string]string{v1.AnnotationVersion: tag, v1.AnnotationLicenses: "Apache-2.0", v1.AnnotationCreated: o.at.Format(time.RFC3339)}
	for key, value := range map[string]string{v1.AnnotationTitle: o.title, v1.AnnotationRevision: o.revision} {
		if value != "" {
			a[key] = value
		}
	}
	return a
}

// writeImage stores the image of one architecture.
func (o *options) writeImage(b *blobs, p platform) (v1.Descriptor, error) {
	where := v1.Platform{OS: "linux", Architecture: p.architecture}
	if p.architecture == "arm64" {
		where.Variant = "v8"
	}
	config := v1.Image{
		Created: &o.at, Platform: where, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.ImageConfig{
			User: o.user, Entrypoint: []string{o.entrypoint}, WorkingDir: "/", Labels: o.annotations(),
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		},
	}
	manifest := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	for _, folder := range p.folders {
		l, err := writeLayer(b, folder, o.at)
		if err != nil {
			return v1.Descriptor{}, err
		}
		manifest.Layers = append(manifest.Layers, l.descriptor)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.diffID)
		config.History = append(config.History, v1.History{Created: &o.at, CreatedBy: "hack/image"})
	}
	var err error
	if manifest.Config, err = b.writeJSON(v1.MediaTypeImageConfig, config); err != nil {
		return v1.Descriptor{}, err
	}
	d, err := b.writeJSON(v1.MediaTypeImageManifest, manifest)
	d.Platform = &where
	return d, err
}

// writeArchive packs a layout; the file appears whole or not at all.
func writeArchive(layout, out string, at time.Time) (err error) {
	f, err := os.CreateTemp(filepath.Dir(out), ".archive-")
	if err != nil {
		return fmt.Errorf("make the archive: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	archive := tar.NewWriter(f)
	err = filepath.WalkDir(layout, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == layout {
			return err
		}
		return pack(archive, layout, path, entry, at)
	})
	if err = errors.Join(err, archive.Close(), f.Chmod(0o644), f.Close()); err != nil {
		return fmt.Errorf("pack the archive: %w", err)
	}
	if err := os.Rename(f.Name(), out); err != nil {
		return fmt.Errorf("name the archive: %w", err)
	}
	return nil
}
