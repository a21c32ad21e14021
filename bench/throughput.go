package bench

import (
	"context"
	"strconv"
	"time"

	"github.com/ravencni/raven/test/lab"
)

// fullPayload is the largest UDP payload in bytes that no path has to cut into fragments: the smallest MTU of all tunnels,
// that of IPsec, is 1400.
const fullPayload = 1400 - 20 - 8

func (b *bed) iperf(ctx context.Context, each time.Duration, args ...string) (lab.IperfResult, error) {
	return b.client.Iperf(ctx, b.server, b.to, append(args, "-t", wholeSeconds(each))...)
}

// oneStream measures a TCP stream, and the whole machine's CPU time for it.
func (b *bed) oneStream(ctx context.Context, each time.Duration) (map[string]float64, error) {
	var r lab.IperfResult
	busy, err := whileBusy(func() (err error) {
		r, err = b.iperf(ctx, each, "-C", congestion)
		return err
	})
	if err != nil {
		return nil, err
	}
	return map[string]float64{TCP: r.BitsPerSecond, CPUPerGB: busy / (r.Bytes / 1e9)}, nil
}

// eightStreams measures eight TCP streams at once.
func (b *bed) eightStreams(ctx context.Context, each time.Duration) (map[string]float64, error) {
	r, err := b.iperf(ctx, each, "-C", congestion, "-P", "8")
	if err != nil {
		return nil, err
	}
	return map[string]float64{TCP8: r.BitsPerSecond}, nil
}

// smallDatagrams sends datagrams of 64 bytes as fast as one process can, and counts those that arrived.
func (b *bed) smallDatagrams(ctx context.Context, each time.Duration) (map[string]float64, error) {
	var r lab.IperfResult
	busy, err := whileBusy(func() (err error) {
		r, err = b.iperf(ctx, each, "-u", "-l", "64", "-b", "0")
		return err
	})
	if err != nil {
		return nil, err
	}
	arrived := float64(r.Packets - r.LostPackets)
	return map[string]float64{UDP64: arrived / r.Seconds, CPUPerMpkt: busy / (arrived / 1e6)}, nil
}

// fullDatagrams does it with datagrams that fill a packet.
func (b *bed) fullDatagrams(ctx context.Context, each time.Duration) (map[string]float64, error) {
	r, err := b.iperf(ctx, each, "-u", "-l", strconv.Itoa(fullPayload), "-b", "0")
	if err != nil {
		return nil, err
	}
	return map[string]float64{UDPFull: float64(r.Packets-r.LostPackets) * fullPayload * 8 / r.Seconds}, nil
}
