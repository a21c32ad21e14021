// Command unpack lays the file systems of image archives below a folder: DIR/<archive>/<architecture>/.
//
//	unpack ARCHIVE... DIR
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ravencni/raven/hack/image/oci"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "unpack ARCHIVE... DIR")
		os.Exit(2)
	}
	into := os.Args[len(os.Args)-1]
	for _, archive := range os.Args[1 : len(os.Args)-1] {
		if err := unpack(archive, filepath.Join(into, filepath.Base(archive))); err != nil {
			fmt.Fprintf(os.Stderr, "unpack: %v\n", err)
			os.Exit(1)
		}
	}
}

func unpack(archive, into string) (err error) {
	layout, err := os.MkdirTemp("", "raven-layout-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(layout)) }()
	images, err := oci.Open(archive, layout)
	if err != nil {
		return err
	}
	for architecture, image := range images {
		dir := filepath.Join(into, architecture)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make a folder: %w", err)
		}
		if err := image.Unpack(dir); err != nil {
			return fmt.Errorf("%s for %s: %w", archive, architecture, err)
		}
	}
	return nil
}
