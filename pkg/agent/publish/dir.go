package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/atomicfile"
)

// Dir publishes to a file tunnelendpoint-<node>.yaml in a folder, for agents that read manifests.
type Dir struct {
	Folder string
	Node   string
}

// Put implements Target. The file is compared with what is on disk, so that a deleted or edited one is repaired.
func (d Dir) Put(_ context.Context, status v1beta1.TunnelEndpointStatus) (bool, error) {
	content, err := yaml.Marshal(endpoint(d.Node, status))
	if err != nil {
		return false, fmt.Errorf("encode TunnelEndpoint %s: %w", d.Node, err)
	}
	path := filepath.Join(d.Folder, "tunnelendpoint-"+d.Node+".yaml")
	switch old, err := os.ReadFile(path); {
	case err == nil && bytes.Equal(old, content):
		return false, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("read the published TunnelEndpoint: %w", err)
	}
	if err := os.MkdirAll(d.Folder, 0o755); err != nil {
		return false, fmt.Errorf("make the folder to publish to: %w", err)
	}
	// Public keys and addresses, no secrets: other users may read it.
	if err := atomicfile.Write(path, content, 0o644); err != nil {
		return false, fmt.Errorf("publish TunnelEndpoint %s: %w", d.Node, err)
	}
	return true, nil
}

// object is a TunnelEndpoint without the null creationTimestamp of ObjectMeta.
type object struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Status v1beta1.TunnelEndpointStatus `json:"status"`
}

func endpoint(node string, status v1beta1.TunnelEndpointStatus) object {
	o := object{TypeMeta: metav1.TypeMeta{APIVersion: v1beta1.GroupVersion.String(), Kind: "TunnelEndpoint"}, Status: status}
	o.Metadata.Name = node
	return o
}
