package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/ravencni/raven/pkg/agent/local"
	"github.com/ravencni/raven/pkg/agent/snapshot"
	"github.com/ravencni/raven/pkg/datapath"
)

// Cleanup removes everything that any agent ever made in this network namespace and calls say with a line for each
// thing that is gone. It goes on after an error, and fails where something of Raven's is left.
func (p *Parts) Cleanup(ctx context.Context, stateDir string, say func(string)) error {
	before, err := Inventory(stateDir)
	errs := []error{err}
	for _, part := range []datapath.Applier{p.Accel, p.Route, p.Filter, p.Overlay} {
		if err := part.Cleanup(ctx); err != nil {
			errs = append(errs, fmt.Errorf("clean up %s: %w", part.Name(), err))
		}
	}
	errs = append(errs, p.cleanDrivers(ctx, ""))
	if err := p.Sysctl.Cleanup(ctx); err != nil {
		errs = append(errs, fmt.Errorf("clean up %s: %w", p.Sysctl.Name(), err))
	}

	after, err := Inventory(stateDir)
	errs = append(errs, err)
	for _, line := range before {
		if !slices.Contains(after, line) {
			say("removed " + line)
		}
	}
	for _, line := range after {
		errs = append(errs, fmt.Errorf("%s is still there", line))
	}
	return errors.Join(errs...)
}

// statePatterns are the files that an agent keeps below its state folder, and what a killed one may have left of them:
// files are made under a name that begins with a dot.
var statePatterns = []string{
	snapshot.FileName, snapshot.FileName + ".bad", "wireguard.*", "wireguard-device.log", "ipsec-daemon.log",
	local.SocketName + "*", "cni.log", "cni.log.1",
	"." + snapshot.FileName + ".*", ".wireguard.*", ".sysctls.json.*",
}

// RemoveState removes what an agent keeps on disk: keys, the last good input and the records of its parts. Anything else
// in the folder stays, and the folder with it.
func RemoveState(stateDir string, say func(string)) error {
	var errs []error
	for _, pattern := range statePatterns {
		paths, err := filepath.Glob(filepath.Join(stateDir, pattern))
		errs = append(errs, err)
		for _, path := range paths {
			if err := os.Remove(path); err != nil {
				errs = append(errs, fmt.Errorf("remove the agent's state: %w", err))
				continue
			}
			say("removed " + path)
		}
	}
	return errors.Join(errs...)
}
