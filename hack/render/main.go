// Command render writes Raven's manifests with the images of one version, and the Helm chart's templates: both from the
// files that the kustomizations under manifests/ name, in their order.
//
//	go run ./hack/render --repository registry.example/raven --version v1.0.0 manifests/install   # to standard output
//	go run ./hack/render --chart manifests/charts/raven-agent                                     # the chart's templates
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

func main() {
	var o options
	flag.StringVar(&o.repository, "repository", "ravencni", "registry and folder of the images")
	flag.StringVar(&o.version, "version", "latest", "tag of the images")
	flag.StringVar(&o.driver, "vpn-driver", "", "value of vpn-driver; empty: as the file says")
	flag.StringVar(&o.chart, "chart", "", "folder of the Helm chart whose templates are written instead")
	flag.StringVar(&o.root, "manifests", "manifests", "folder of the manifests, for --chart")
	flag.Parse()
	if err := o.run(os.Stdout, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "render: %v\n", err)
		os.Exit(1)
	}
}

type options struct{ repository, version, driver, chart, root string }

func (o options) run(out io.Writer, kustomizations []string) error {
	if o.chart != "" {
		return writeChart(o.root, o.chart)
	}
	if len(kustomizations) == 0 {
		return fmt.Errorf("name a folder with a kustomization, such as manifests/install")
	}
	for _, k := range kustomizations {
		files, err := resources(k)
		if err != nil {
			return err
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return fmt.Errorf("read a manifest: %w", err)
			}
			doc := strings.TrimPrefix(string(text), "---\n")
			if _, err := fmt.Fprintf(out, "---\n%s", o.fill(doc)); err != nil {
				return fmt.Errorf("write the manifests: %w", err)
			}
		}
	}
	return nil
}

// What the manifests say where an installation says its own.
const (
	imagePrefix = "image: ravencni/"
	imageTag    = ":latest"
	driverLine  = "vpn-driver: ipsec"
)

func (o options) fill(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if name, ok := imageOf(l); ok {
			lines[i] = l[:strings.Index(l, "image:")] + "image: " + o.repository + "/" + name + ":" + o.version
		}
	}
	text = strings.Join(lines, "\n")
	if o.driver != "" {
		text = strings.Replace(text, driverLine, "vpn-driver: "+o.driver, 1)
	}
	return text
}

// imageOf is the name of Raven's image that a line names.
func imageOf(line string) (name string, ok bool) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "- ")), imagePrefix)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, imageTag)
}

// resources are the files that the kustomization of a folder names, those of the folders that it names included.
func resources(dir string) ([]string, error) {
	file, err := kustomizationOf(dir)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read a kustomization: %w", err)
	}
	var k struct {
		APIVersion string   `json:"apiVersion"`
		Kind       string   `json:"kind"`
		Resources  []string `json:"resources"`
	}
	if err := yaml.UnmarshalStrict(text, &k); err != nil { // what this program does not know, it would not do
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	var files []string
	for _, r := range k.Resources {
		path := filepath.Join(dir, r)
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("%s names: %w", file, err)
		}
		if !info.IsDir() {
			files = append(files, path)
			continue
		}
		more, err := resources(path)
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	return files, nil
}

func kustomizationOf(dir string) (string, error) {
	names := []string{"kustomization.yaml", "Kustomization"}
	i := slices.IndexFunc(names, func(n string) bool {
		_, err := os.Stat(filepath.Join(dir, n))
		return err == nil
	})
	if i < 0 {
		return "", fmt.Errorf("%s has none of %s", dir, strings.Join(names, ", "))
	}
	return filepath.Join(dir, names[i]), nil
}
