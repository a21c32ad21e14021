package lab

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// PingResult is what ping printed.
type PingResult struct {
	// TTLs of the answers, in order.
	TTLs []int
	// First is the line of the first answer.
	First string
	// Output is all that ping wrote.
	Output string
}

var ttlOf = regexp.MustCompile(`ttl=(\d+)`)

// Ping runs ping with the given number of echo requests, a fifth of a second apart, and more arguments.
func (h *Host) Ping(ctx context.Context, to netip.Addr, count int, args ...string) (PingResult, error) {
	args = append([]string{"-n", "-c", strconv.Itoa(count), "-i", "0.2", "-W", "2"}, append(args, to.String())...)
	out, err := h.Run(ctx, "ping", args...)
	r := PingResult{Output: out}
	for line := range strings.Lines(out) {
		m := ttlOf.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if r.First == "" {
			r.First = strings.TrimSpace(line)
		}
		ttl, convErr := strconv.Atoi(m[1])
		if convErr != nil {
			return r, fmt.Errorf("read ping's line %q: %w", line, convErr)
		}
		r.TTLs = append(r.TTLs, ttl)
	}
	if err != nil {
		return r, fmt.Errorf("%w: %s", err, strings.TrimSpace(out))
	}
	return r, nil
}
