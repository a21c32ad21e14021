// Package gather packs what a developer needs to understand a node from afar. No secret is in it: keys are never read,
// and of what others keep only Raven's own tables are.
package gather

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// commands show the kernel's side. Those that are not installed are said to be missing.
var commands = []string{
	"uname -a", "ip -d link", "ip address", "ip rule", "ip -6 rule", "ip route", "ip -6 route",
	"ip route show table 9027", "ip -6 route show table 9027", "ip route show table 9028", "ip -6 route show table 9028",
	"ip neigh show dev raven0", "bridge fdb show dev raven0", "nft list table inet raven", "bpftool net",
	"bpftool map dump pinned /sys/fs/bpf/raven/v4/raven_fib4", "bpftool map dump pinned /sys/fs/bpf/raven/v2/raven_nexthops",
	"bpftool map dump pinned /sys/fs/bpf/raven/v4/raven_pods",
	"sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.all.rp_filter",
}

// commandTakes bounds one command.
const commandTakes = 10 * time.Second

// Write makes a gzipped tar archive of values, as JSON by their names, and of the outputs of commands.
func Write(ctx context.Context, w io.Writer, values map[string]any, at time.Time) (err error) {
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	add := func(name string, content []byte) error {
		h := &tar.Header{Name: "raven/" + name, Mode: 0o600, Size: int64(len(content)), ModTime: at}
		if err := t.WriteHeader(h); err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
		if _, err := t.Write(content); err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
		return nil
	}
	for name, v := range values {
		content, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return fmt.Errorf("encode %s: %w", name, err)
		}
		if err := add(name+".json", content); err != nil {
			return err
		}
	}
	for _, line := range commands {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := add(strings.NewReplacer(" ", "_", "/", "-").Replace(line)+".txt", output(ctx, line)); err != nil {
			return err
		}
	}
	return errors.Join(t.Close(), z.Close())
}

// output is what a command printed, and how it failed.
func output(ctx context.Context, line string) []byte {
	ctx, cancel := context.WithTimeout(ctx, commandTakes)
	defer cancel()
	words := strings.Fields(line)
	out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput()
	if err != nil {
		out = append(out, "\n("+err.Error()+")\n"...)
	}
	return out
}
