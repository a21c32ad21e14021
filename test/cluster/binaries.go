package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const buildScript = "test/cluster/binaries/build.sh"

// findRoot looks for the checkout in and above the working folder, where every test and tool of this repository runs.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("look for %s: %w", buildScript, err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, buildScript)); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find no %s in or above the working folder: run this in a checkout of Raven", buildScript)
		}
		dir = filepath.Dir(dir)
	}
}

// findBinaries returns the folder of the control plane's programs.
func findBinaries(ctx context.Context, root string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(root, buildScript), "--where")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ask %s where the control plane's programs lie: %w", buildScript, err)
	}
	folder := strings.TrimSpace(string(out))
	if _, err := os.Stat(folder); err != nil {
		return "", fmt.Errorf("the control plane's programs are not built: run 'make cluster-binaries', which takes about "+
			"15 minutes once: %w", err)
	}
	return folder, nil
}
