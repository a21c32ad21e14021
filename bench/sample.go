package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ravencni/raven/test/lab"
)

// Sample is one round of measurements of one variant.
type Sample struct {
	Variant string `json:"variant"`
	// Round counts from 0; the samples of one round were taken one after the other.
	Round int `json:"round"`
	// RTT50 and RTT99 of a TCP request and its response, 64 bytes each way, in microseconds.
	RTT50 float64 `json:"rtt_p50_us"`
	RTT99 float64 `json:"rtt_p99_us"`
	// TCP throughput of one stream, in bits per second.
	TCP float64 `json:"tcp_bits_per_second"`
	// CPU seconds that the whole machine spent per 10^9 bytes of that stream.
	CPUPerGB float64 `json:"tcp_cpu_seconds_per_gb"`
	// UDP64 datagrams of 64 bytes that arrived per second.
	UDP64 float64 `json:"udp64_packets_per_second"`
}

// sample measures one variant once; each of the three parts runs for about the given time.
func (b *bed) sample(ctx context.Context, round int, each time.Duration) (Sample, error) {
	s := Sample{Variant: b.variant.Name, Round: round}
	from, at := b.lab.Host(client), b.lab.Host(server)
	var err error
	if s.RTT50, s.RTT99, err = b.pingPong(ctx, from, at, each); err != nil {
		return s, err
	}
	seconds := fmt.Sprintf("%.0f", max(1, each.Seconds()))
	busy, err := busySeconds()
	if err != nil {
		return s, err
	}
	tcp, err := from.Iperf(ctx, at, b.to, "-t", seconds)
	if err != nil {
		return s, err
	}
	after, err := busySeconds()
	if err != nil {
		return s, err
	}
	s.TCP, s.CPUPerGB = tcp.BitsPerSecond, (after-busy)/(tcp.Bytes/1e9)
	udp, err := from.Iperf(ctx, at, b.to, "-u", "-l", "64", "-b", "0", "-t", seconds)
	if err != nil {
		return s, err
	}
	s.UDP64 = float64(udp.Packets-udp.LostPackets) / udp.Seconds
	return s, nil
}

const sockperfPort = "7001"

var (
	sockperf50 = regexp.MustCompile(`percentile 50\.000\s*=\s*([0-9.]+)`)
	sockperf99 = regexp.MustCompile(`percentile 99\.000\s*=\s*([0-9.]+)`)
)

// pingPong measures round trips with sockperf, in microseconds. Both of its ends poll, so that the scheduler's share is
// small; that takes two idle processors.
func (b *bed) pingPong(ctx context.Context, from, at *lab.Host, each time.Duration) (p50, p99 float64, err error) {
	serving, stop := context.WithCancel(ctx)
	defer stop()
	s, err := at.Start(serving, nil, "sockperf", "server", "--tcp", "--nonblocked", "-p", sockperfPort)
	if err != nil {
		return 0, 0, err
	}
	defer func() { stop(); <-s.Done() }()
	err = lab.Await(ctx, "sockperf to listen on "+at.Name, func(ctx context.Context) error {
		out, err := at.Run(ctx, "ss", "-Hltn", "sport", "=", ":"+sockperfPort)
		if err == nil && strings.TrimSpace(out) == "" {
			err = errors.New("it does not listen yet")
		}
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	out, err := from.Run(ctx, "sockperf", "ping-pong", "--tcp", "--nonblocked", "--full-rtt", "-m", "64", "-i", b.to.String(), "-p", sockperfPort,
		"-t", fmt.Sprintf("%.0f", max(1, each.Seconds())))
	if err != nil {
		return 0, 0, err
	}
	for _, p := range []struct {
		re *regexp.Regexp
		to *float64
	}{{sockperf50, &p50}, {sockperf99, &p99}} {
		m := p.re.FindStringSubmatch(out)
		if m == nil {
			return 0, 0, fmt.Errorf("sockperf on %s printed no percentiles: %s", from.Name, out)
		}
		if *p.to, err = strconv.ParseFloat(m[1], 64); err != nil {
			return 0, 0, fmt.Errorf("read sockperf's %q: %w", m[0], err)
		}
	}
	return p50, p99, nil
}

// userHz is the unit of /proc/stat (USER_HZ, 100 on every architecture that Linux runs containers on).
const userHz = 100

// busySeconds is the time that all CPUs of the machine have spent on anything but idling and waiting for disks.
func busySeconds() (float64, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read the machine's CPU time: %w", err)
	}
	line, err := bufio.NewReader(bytes.NewReader(stat)).ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("read /proc/stat: %w", err)
	}
	// cpu user nice system idle iowait irq softirq steal guest guest_nice
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q, not with the sum of all CPUs", line)
	}
	var ticks float64
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return 0, fmt.Errorf("read /proc/stat: %w", err)
		}
		ticks += n
	}
	return ticks / userHz, nil
}
