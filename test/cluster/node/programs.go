package node

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/ravencni/raven/test/cluster"
)

// Programs are the folders of what runs on a node.
type Programs struct{ Kubernetes, Containerd, Plugins string }

// FindPrograms looks for what `make e2e` builds; root is the checkout.
func FindPrograms(ctx context.Context, c *cluster.Cluster, root string) (*Programs, error) {
	p := &Programs{Kubernetes: c.Binaries()}
	for _, from := range []struct {
		folder *string
		script string
		args   []string
	}{
		{&p.Containerd, "test/cluster/containerd/build.sh", []string{"--where"}},
		{&p.Plugins, "test/cniplugins/build.sh", nil},
	} {
		cmd := exec.CommandContext(ctx, filepath.Join(root, from.script), from.args...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("ask %s where its programs lie: %w", from.script, err)
		}
		*from.folder = strings.TrimSpace(string(out))
		if _, err := os.Stat(*from.folder); err != nil {
			return nil, fmt.Errorf("%s was not run yet: `make e2e` does: %w", from.script, err)
		}
	}
	return p, nil
}
