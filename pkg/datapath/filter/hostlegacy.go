package filter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// legacyWaitSeconds is how long iptables-legacy waits for its lock.
const legacyWaitSeconds = "5"

// legacyTool names the iptables-legacy program of a family, or its restore program.
func legacyTool(v6, restore bool) string {
	name := "iptables-legacy"
	if v6 {
		name = "ip6tables-legacy"
	}
	if restore {
		name += "-restore"
	}
	return name
}

// legacyInUse says whether this network namespace holds a filter table of iptables-legacy. Asking the tool would make
// one.
func legacyInUse(v6 bool) (bool, error) {
	path := "/proc/thread-self/net/ip_tables_names"
	if v6 {
		path = "/proc/thread-self/net/ip6_tables_names"
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // a kernel without it
	}
	if err != nil {
		return false, fmt.Errorf("see whether iptables-legacy is in use: %w", err)
	}
	return slices.Contains(strings.Fields(string(b)), "filter"), nil
}

// applyHostLegacy is applyHostNFT for iptables-legacy, whose rules only its own program can write; it tells nobody of
// changes, so these are found by the periodic pass.
func (a *Applier) applyHostLegacy(ctx context.Context, v6 bool, want hostRules) (int, error) {
	used, err := legacyInUse(v6)
	if err != nil || !used {
		return 0, err
	}
	tool := legacyTool(v6, false)
	if _, err := exec.LookPath(tool); err != nil {
		if len(want) == 0 {
			return 0, nil // what we never could write needs no removal
		}
		return 0, fmt.Errorf("the host filters with iptables-legacy, and %s is not to be found: transit and VXLAN pass only as far as its FORWARD and INPUT policies let them; add the program to the agent's image, or move the host to iptables-nft", tool)
	}
	var script bytes.Buffer
	for _, chain := range hostChains {
		rules, err := legacyRules(ctx, tool, chain)
		if err != nil {
			return 0, err
		}
		var lines []string
		for _, r := range want[chain] {
			lines = append(lines, "-A "+chain+" "+r.String())
		}
		switch placing(seenLegacy(rules), lines) {
		case placeRight:
			continue
		case placeDisplaced:
			if !a.damper.allow(tool + " " + chain) {
				continue
			}
		}
		for _, r := range rules {
			if isOursLegacy(r) {
				fmt.Fprintf(&script, "-D%s\n", strings.TrimPrefix(r, "-A"))
			}
		}
		for _, r := range slices.Backward(want[chain]) { // each goes to the head
			fmt.Fprintf(&script, "-I %s 1 %s\n", chain, r)
		}
	}
	if script.Len() == 0 {
		return 0, nil
	}
	cmd := exec.CommandContext(ctx, legacyTool(v6, true), "-w", legacyWaitSeconds, "--noflush")
	cmd.Stdin = strings.NewReader("*filter\n" + script.String() + "COMMIT\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("write our rules with %s: %w: %s", cmd.Args[0], err, bytes.TrimSpace(out))
	}
	return 1, nil
}

// legacyRules lists a chain's rules as the tool prints them, the policy left out.
func legacyRules(ctx context.Context, tool, chain string) ([]string, error) {
	cmd := exec.CommandContext(ctx, tool, "-w", legacyWaitSeconds, "-S", chain)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
		}
		return nil, fmt.Errorf("list chain %s with %s: %w", chain, tool, err)
	}
	var rules []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "-A ") {
			rules = append(rules, line)
		}
	}
	return rules, nil
}

func isOursLegacy(rule string) bool {
	words := legacyWords(rule)
	i := slices.Index(words, "--comment")
	return i >= 0 && i+1 < len(words) && slices.Contains(hostComments, words[i+1])
}

// legacyWords splits a rule as iptables prints it: what holds blanks stands in quotes, in which a backslash goes before
// quotes and backslashes.
func legacyWords(rule string) (words []string) {
	var word strings.Builder
	begun, quoted, escaped := false, false, false
	for _, c := range rule {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			begun, quoted = true, !quoted
		case c == ' ' && !quoted:
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteRune(c)
			begun = true
		}
	}
	if begun {
		words = append(words, word.String())
	}
	return words
}

func seenLegacy(rules []string) []seen {
	out := make([]seen, len(rules))
	for i, r := range rules {
		out[i] = seen{ours: isOursLegacy(r), same: r, refuses: strings.Contains(r, "-j DROP") || strings.Contains(r, "-j REJECT")}
	}
	return out
}
