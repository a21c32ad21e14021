package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
)

// Kernel is what a node's kernel holds, by name: links, addresses, rules, routes of all tables, neighbours, nft and
// iptables rules, traffic control, pinned BPF objects and every sysctl below net.
type Kernel map[string]string

// counting are the parts of listings that change by themselves.
var counting = regexp.MustCompile(`(expires|preferred_lft|valid_lft|used|\w*timer) +\S+|state (UP|UNKNOWN) |@if\d+|link-netnsid \d+|\[\d+:\d+\]|packets \d+ bytes \d+|# handle \d+`)

// generated are the comments of iptables-save, which hold the time.
var generated = regexp.MustCompile(`(?m)^# .*\n`)

// iptables leaves its tables and chains behind when the last rule goes; without a rule, and with policy accept, they
// are nothing.
var (
	emptyChain = regexp.MustCompile(`(?m)^\tchain (INPUT|OUTPUT|FORWARD|PREROUTING|POSTROUTING) \{\n\t\ttype .* policy accept;\n\t\}\n\n?`)
	emptyTable = regexp.MustCompile(`(?m)^table ip6? (filter|nat|mangle|raw) \{\n\}\n`)
)

// Kernel looks at all of it.
func (h *Host) Kernel(ctx context.Context) (Kernel, error) {
	k := Kernel{}
	for what, command := range map[string]string{
		"links": "ip -o -d link | sed 's/^[0-9]*: //'", "addresses": "ip -o address | sed 's/^[0-9]*: //'",
		"rules": "ip rule", "IPv6 rules": "ip -6 rule",
		"routes":           "ip route show table all | sort",
		"IPv6 routes":      "ip -6 route show table all | sort",
		"fixed neighbours": "ip neigh show nud permanent; ip -6 neigh show nud permanent",
		"nft":              "nft list ruleset", "iptables-legacy": "iptables-legacy-save", "ip6tables-legacy": "ip6tables-legacy-save",
		"tc": "tc qdisc", "pinned": "find /sys/fs/bpf | sort", "var-run": "find /run/wireguard /run/raven ! -type d 2>/dev/null | sort",
	} {
		out, err := h.Run(ctx, "sh", "-c", command+"; true")
		if err != nil {
			return nil, err
		}
		out = generated.ReplaceAllString(counting.ReplaceAllString(out, ""), "")
		if what == "nft" {
			out = emptyTable.ReplaceAllString(emptyChain.ReplaceAllString(out, ""), "")
		}
		k[what] = out
	}
	if err := h.Do(func() error { return k.sysctls("/proc/sys/net") }); err != nil {
		return nil, fmt.Errorf("read the sysctls of %s: %w", h.Name, err)
	}
	return k, nil
}

// transient sysctls are counters, or made at random when the namespace was.
var transient = regexp.MustCompile(`nf_conntrack_count|/stable_secret|fib_multipath_hash_seed|dev_(addr|)_gen`)

func (k Kernel) sysctls(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // of a device that went meanwhile
		}
		if err != nil || d.IsDir() || transient.MatchString(path) {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil // write-only, or of a device that went meanwhile
		}
		k[strings.TrimPrefix(path, "/proc/sys/")] = strings.TrimSpace(string(b))
		return nil
	})
}

// Diff names what differs, in lines; empty: nothing.
func (k Kernel) Diff(after Kernel) string {
	names := map[string]bool{}
	for name := range k {
		names[name] = true
	}
	for name := range after {
		names[name] = true
	}
	var lines []string
	for name := range names {
		if k[name] == after[name] {
			continue
		}
		was, is := lineSet(k[name]), lineSet(after[name])
		for line := range was {
			if !is[line] {
				lines = append(lines, fmt.Sprintf("%s: gone: %s", name, line))
			}
		}
		for line := range is {
			if !was[line] {
				lines = append(lines, fmt.Sprintf("%s: new: %s", name, line))
			}
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func lineSet(text string) map[string]bool {
	set := map[string]bool{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			set[line] = true
		}
	}
	return set
}
