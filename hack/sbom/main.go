// Command sbom writes a software bill of materials in CycloneDX's JSON: the Go modules that the linker recorded in the
// given programs, and the Debian packages that hack/image/rootfs.sh listed.
//
//	sbom --name raven --version v1.0.0 --time 1700000000 [--debian FILE]... PROGRAM...
package main

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

type document struct {
	Format      string      `json:"bomFormat"`
	SpecVersion string      `json:"specVersion"`
	Version     int         `json:"version"`
	Metadata    metadata    `json:"metadata"`
	Components  []component `json:"components"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Type     string     `json:"type"`
	Ref      string     `json:"bom-ref,omitempty"`
	Name     string     `json:"name"`
	Version  string     `json:"version,omitempty"`
	PURL     string     `json:"purl,omitempty"`
	Hashes   []checksum `json:"hashes,omitempty"`
	Licenses []license  `json:"licenses,omitempty"`
	// Properties of a module: the programs that hold it.
	Properties []property `json:"properties,omitempty"`
}

type checksum struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type license struct {
	License struct {
		ID string `json:"id"`
	} `json:"license"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	var debian list
	name := flag.String("name", "raven", "name of the whole")
	version := flag.String("version", "", "version of the whole")
	seconds := flag.Int64("time", 0, "time of the document, in seconds since 1970")
	flag.Var(&debian, "debian", "file with lines of name, version, architecture and SHA-256 of Debian packages")
	flag.Parse()
	if err := write(os.Stdout, *name, *version, time.Unix(*seconds, 0).UTC(), debian, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "sbom: %v\n", err)
		os.Exit(1)
	}
}

func write(out io.Writer, name, version string, at time.Time, debian, programs []string) error {
	parts := map[string]component{}
	for _, p := range programs {
		if err := addProgram(parts, p, version); err != nil {
			return err
		}
	}
	for _, file := range debian {
		if err := addPackages(parts, file); err != nil {
			return err
		}
	}
	whole := component{Type: "application", Name: name, Version: version}
	var apache license
	apache.License.ID = "Apache-2.0"
	whole.Licenses = []license{apache}
	d := document{Format: "CycloneDX", SpecVersion: "1.5", Version: 1, Metadata: metadata{Timestamp: at.Format(time.RFC3339), Component: whole}}
	d.Components = slices.SortedFunc(maps.Values(parts), func(a, b component) int { return cmp.Compare(a.Ref, b.Ref) })
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(d); err != nil {
		return fmt.Errorf("write the document: %w", err)
	}
	return nil
}

// addProgram adds a program and the modules in it.
func addProgram(parts map[string]component, path, version string) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the modules of %s: %w", path, err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	arch := ""
	for _, s := range info.Settings {
		if s.Key == "GOARCH" {
			arch = s.Value
		}
	}
	label := filepath.Base(path) + "/" + arch
	parts["program:"+label] = component{
		Type: "application", Ref: "program:" + label, Name: label, Version: version,
		Hashes: []checksum{{"SHA-256", fmt.Sprintf("%x", sha256.Sum256(content))}},
	}
	add := func(module, version, purl string) {
		c, ok := parts[purl]
		if !ok {
			c = component{Type: "library", Ref: purl, Name: module, Version: version, PURL: purl}
		}
		c.Properties = append(c.Properties, property{"raven:program", label})
		parts[purl] = c
	}
	add("stdlib", strings.TrimPrefix(info.GoVersion, "go"), "pkg:golang/stdlib@"+strings.TrimPrefix(info.GoVersion, "go"))
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		add(m.Path, m.Version, "pkg:golang/"+m.Path+"@"+m.Version)
	}
	return nil
}

// addPackages adds the Debian packages of a list.
func addPackages(parts map[string]component, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("read the list of Debian packages: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) != 4 {
			return fmt.Errorf("%s: %q is not name, version, architecture and SHA-256", file, lines.Text())
		}
		purl := "pkg:deb/debian/" + words[0] + "@" + strings.ReplaceAll(words[1], "+", "%2B") + "?arch=" + words[2] + "&distro=debian-12"
		parts[purl] = component{Type: "library", Ref: purl, Name: words[0], Version: words[1], PURL: purl, Hashes: []checksum{{"SHA-256", words[3]}}}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	return nil
}
