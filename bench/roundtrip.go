package bench

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ravencni/raven/test/lab"
)

const sockperfPort = "7001"

var sockperfPercentile = map[string]*regexp.Regexp{
	RTT50: regexp.MustCompile(`percentile 50\.000\s*=\s*([0-9.]+)`),
	RTT99: regexp.MustCompile(`percentile 99\.000\s*=\s*([0-9.]+)`),
}

// roundTrips measures a TCP request and its response, 64 bytes each way, with sockperf. Both of its ends poll, so that the
// scheduler's share is small; that takes two idle processors.
func (b *bed) roundTrips(ctx context.Context, each time.Duration) (map[string]float64, error) {
	serving, stop := context.WithCancel(ctx)
	defer stop()
	s, err := b.server.Start(serving, nil, "sockperf", "server", "--tcp", "--nonblocked", "-p", sockperfPort)
	if err != nil {
		return nil, err
	}
	defer func() { stop(); <-s.Done() }()
	err = lab.Await(ctx, "sockperf to listen on "+b.server.Name, func(ctx context.Context) error {
		out, err := b.server.Run(ctx, "ss", "-Hltn", "sport", "=", ":"+sockperfPort)
		if err == nil && strings.TrimSpace(out) == "" {
			err = errors.New("it does not listen yet")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	out, err := b.client.Run(ctx, "sockperf", "ping-pong", "--tcp", "--nonblocked", "--full-rtt", "-m", "64", "-i", b.to.String(),
		"-p", sockperfPort, "-t", wholeSeconds(each))
	if err != nil {
		return nil, err
	}
	values := map[string]float64{}
	for key, re := range sockperfPercentile {
		m := re.FindStringSubmatch(out)
		if m == nil {
			return nil, fmt.Errorf("sockperf on %s printed no percentiles: %s", b.client.Name, out)
		}
		if values[key], err = strconv.ParseFloat(m[1], 64); err != nil {
			return nil, fmt.Errorf("read sockperf's %q: %w", m[0], err)
		}
	}
	return values, nil
}

// wholeSeconds is a duration as the tools take it: at least one second.
func wholeSeconds(d time.Duration) string { return fmt.Sprintf("%.0f", max(1, d.Seconds())) }
