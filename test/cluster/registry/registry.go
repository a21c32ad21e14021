// Package registry serves OCI image archives as a container registry does, to be read only.
package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ravencni/raven/hack/image/oci"
)

// Registry has images by their names without the registry's own, such as library/busybox.
type Registry struct {
	server  http.Server
	serving sync.WaitGroup
	// manifests maps name:tag to the blob of the image's index.
	manifests map[string]v1.Descriptor
	layouts   []string
}

// Serve answers on the listener until Close. dir is an empty folder for what the archives hold.
func Serve(listener net.Listener, dir string, archives ...string) (*Registry, error) {
	r := &Registry{manifests: map[string]v1.Descriptor{}}
	for i, archive := range archives {
		if err := r.add(archive, filepath.Join(dir, fmt.Sprint(i))); err != nil {
			return nil, err
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/{$}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /v2/{path...}", r.answer)
	r.server = http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	// It ends with Close; an error of one connection is its client's.
	r.serving.Go(func() { _ = r.server.Serve(listener) })
	return r, nil
}

// Close ends all connections.
func (r *Registry) Close() error {
	err := r.server.Close()
	r.serving.Wait()
	return err
}

func (r *Registry) add(archive, layout string) error {
	if err := os.MkdirAll(layout, 0o755); err != nil {
		return fmt.Errorf("make the folder of an image: %w", err)
	}
	if _, err := oci.Open(archive, layout); err != nil {
		return err
	}
	content, err := os.ReadFile(filepath.Join(layout, v1.ImageIndexFile))
	if err != nil {
		return fmt.Errorf("read the index of %s: %w", archive, err)
	}
	var index v1.Index
	if err := json.Unmarshal(content, &index); err != nil {
		return fmt.Errorf("read the index of %s: %w", archive, err)
	}
	for _, d := range index.Manifests {
		_, name, found := strings.Cut(d.Annotations["io.containerd.image.name"], "/") // after the registry's name
		if !found {
			return fmt.Errorf("%s does not say which image it holds", archive)
		}
		r.manifests[name] = d
	}
	r.layouts = append(r.layouts, layout)
	return nil
}

// answer serves NAME/manifests/TAG, NAME/manifests/DIGEST and NAME/blobs/DIGEST. All images' blobs are in one pool.
func (r *Registry) answer(w http.ResponseWriter, req *http.Request) {
	folder, reference := filepath.Split(req.PathValue("path"))
	name, kind := filepath.Split(strings.TrimSuffix(folder, "/"))
	wanted := digest.Digest(reference)
	if kind == "manifests" && wanted.Validate() != nil {
		d, known := r.manifests[strings.TrimSuffix(name, "/")+":"+reference]
		if !known {
			http.Error(w, "there is no image "+name+":"+reference, http.StatusNotFound)
			return
		}
		wanted = d.Digest
	}
	content, err := r.open(wanted)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	defer content.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	if kind == "manifests" {
		var document struct {
			MediaType string `json:"mediaType"`
		}
		if err := json.NewDecoder(content).Decode(&document); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", document.MediaType)
	}
	w.Header().Set("Docker-Content-Digest", wanted.String())
	http.ServeContent(w, req, "", time.Time{}, content)
}

func (r *Registry) open(wanted digest.Digest) (*os.File, error) {
	if err := wanted.Validate(); err != nil {
		return nil, fmt.Errorf("read %q: %w", wanted, err)
	}
	for _, layout := range r.layouts {
		f, err := os.Open(filepath.Join(layout, v1.ImageBlobsDir, wanted.Algorithm().String(), wanted.Encoded()))
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, fmt.Errorf("there is no blob %s", wanted)
}
