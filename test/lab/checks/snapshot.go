package checks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/ravencni/raven/test/lab"
)

// SnapshotStart switches a member and a gateway off and on again and starts their agents without any manifest: from
// the last good input on disk each builds the same state, and traffic flows.
var SnapshotStart = Check{
	Name: "snapshot-start",
	Says: "a rebooted node's agent restores the same state from its snapshot, without manifests",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		restored := 0
		for _, node := range []string{"hangzhou-2", "hangzhou-1"} {
			n, err := restoreFromSnapshot(ctx, l, node)
			if err != nil {
				return "", fmt.Errorf("%s: %w", node, err)
			}
			restored += n
		}
		return fmt.Sprintf("%d objects of Raven as before the reboots", restored), nil
	},
}

func restoreFromSnapshot(ctx context.Context, l *lab.Lab, node string) (int, error) {
	before, err := ravens(ctx, l, node)
	if err != nil {
		return 0, err
	}
	if err := l.Reboot(ctx, node); err != nil {
		return 0, err
	}
	if err := l.ServeEcho(ctx); err != nil {
		return 0, err
	}
	empty := filepath.Join(l.Dir, "no-manifests")
	if err := os.MkdirAll(empty, 0o755); err != nil {
		return 0, fmt.Errorf("make an empty folder: %w", err)
	}
	options := l.Options()
	options.Manifests = empty
	agent, err := l.StartAgent(ctx, options, node)
	if err != nil {
		return 0, err
	}
	err = lab.Await(ctx, "the same state", func(ctx context.Context) error {
		now, err := ravens(ctx, l, node)
		if err != nil {
			return err
		}
		if diff := before.Diff(now); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
	if err == nil {
		err = roundTrip(ctx, l)
	}
	// Back to the folder that the others read.
	err = errors.Join(err, agent.Stop())
	if _, startErr := l.StartAgent(ctx, l.Options(), node); startErr != nil {
		return 0, errors.Join(err, startErr)
	}
	lines := 0
	for _, listing := range before {
		lines += strings.Count(listing, "\n")
	}
	return lines, errors.Join(err, l.AwaitReady(ctx, node))
}

// ofDevice are numbers that a device or a rule gets anew.
var ofDevice = regexp.MustCompile(`^\d+: |(packets|bytes) \d+|# handle \d+`)

// ravens is Raven's own state in a node's kernel.
func ravens(ctx context.Context, l *lab.Lab, node string) (lab.Kernel, error) {
	k := lab.Kernel{}
	for what, command := range map[string]string{
		"rules": "ip rule; ip -6 rule", "remote": "ip route show table 9027 | sort; ip -6 route show table 9027 | sort",
		"in-region":  "ip route show table 9028 2>/dev/null | sort; ip -6 route show table 9028 2>/dev/null | sort",
		"neighbours": "ip neigh show dev raven0 nud permanent; ip -6 neigh show dev raven0 nud permanent",
		"fdb":        "bridge fdb show dev raven0 | sort", "addresses": "ip -o address show dev raven0 | sed 's/^[0-9]*: //'",
		"nft": "nft list table inet raven", "pinned": "find /sys/fs/bpf/raven | sort",
		"key": "cat /var/lib/raven/*key* 2>/dev/null | sha256sum",
	} {
		out, err := l.Host(node).Run(ctx, "sh", "-c", command)
		if err != nil {
			return nil, err
		}
		k[what] = ofDevice.ReplaceAllString(out, "")
	}
	return k, nil
}
