package lab

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
)

// manifestTemplate is the tutorial's own manifest, with its quirks (v1beta1 fields under v1alpha1, a repeated key, a
// lone capital R), and the Nodes as Kubernetes shows them.
//
//go:embed manifests.yaml.tmpl
var manifestTemplate string

// Manifests is the folder from which all agents read and into which they publish.
func (l *Lab) Manifests() string { return filepath.Join(l.Dir, "manifests") }

// WriteManifest puts a file into the manifests folder atomically.
func (l *Lab) WriteManifest(name, content string) error {
	path := filepath.Join(l.Manifests(), name)
	// The folder is watched: the new file must appear whole.
	temporary := filepath.Join(l.Dir, "."+name)
	if err := os.WriteFile(temporary, []byte(content), 0o644); err != nil {
		return fmt.Errorf("write manifest %s: %w", name, err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("put manifest %s into its folder: %w", name, err)
	}
	return nil
}

// ConfigureDriver makes a driver the cluster's.
func (l *Lab) ConfigureDriver(driver string) error {
	return l.WriteManifest("configmap-raven-agent-config.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n"+
		"  name: raven-agent-config\n  namespace: kube-system\ndata:\n  vpn-driver: "+driver+"\n")
}

// ReadManifest reads a file of the manifests folder.
func (l *Lab) ReadManifest(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(l.Manifests(), name))
	if err != nil {
		return "", fmt.Errorf("read manifest: %w", err)
	}
	return string(b), nil
}

// ManifestFiles names the files in the manifests folder, sorted.
func (l *Lab) ManifestFiles() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(l.Manifests(), "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("list the manifests: %w", err)
	}
	for i := range files {
		files[i] = filepath.Base(files[i])
	}
	return files, nil
}

// RemoveManifest takes a file out of the manifests folder.
func (l *Lab) RemoveManifest(name string) error {
	if err := os.Remove(filepath.Join(l.Manifests(), name)); err != nil {
		return fmt.Errorf("remove manifest: %w", err)
	}
	return nil
}

// writeManifests writes one file per Gateway and one per Node.
func (l *Lab) writeManifests() error {
	t, err := template.New("manifests").Parse(manifestTemplate)
	if err != nil {
		return fmt.Errorf("parse the manifests' template: %w", err)
	}
	write := func(kind, name string, data any) error {
		var b bytes.Buffer
		if err := t.ExecuteTemplate(&b, kind, data); err != nil {
			return fmt.Errorf("make the manifest of %s %s: %w", kind, name, err)
		}
		return l.WriteManifest(kind+"-"+name+".yaml", b.String())
	}
	for i := range l.Spec.Regions {
		r := &l.Spec.Regions[i]
		if err := write("gateway", r.Name, r); err != nil {
			return err
		}
		for _, n := range r.Nodes {
			if err := write("node", n.Name, struct {
				Region string
				Node   Node
			}{r.Name, n}); err != nil {
				return err
			}
		}
	}
	return nil
}

// State is what a process outside the enclosure needs to enter a host.
type State struct {
	Name string `json:"name"`
	// Holders maps hosts to the process that holds their namespaces, in the enclosure's pid namespace.
	Holders map[string]int `json:"holders"`
}

// StateFile is where a lab's State lies.
func StateFile(name string) string { return filepath.Join(Folder, name, "state.json") }

func (l *Lab) writeState() error {
	s := State{Name: l.Name, Holders: map[string]int{}}
	for _, name := range l.Hosts() {
		s.Holders[name] = l.Host(name).holder.Process.Pid
	}
	b, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return fmt.Errorf("encode the lab's state: %w", err)
	}
	if err := os.WriteFile(StateFile(l.Name), b, 0o644); err != nil {
		return fmt.Errorf("write the lab's state: %w", err)
	}
	return nil
}
