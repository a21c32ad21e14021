package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// IperfResult is the part of iperf3's report that the lab uses.
type IperfResult struct {
	// BitsPerSecond that the receiver took in.
	BitsPerSecond float64
	// Bytes that the receiver took in.
	Bytes float64
	// Packets sent and lost, UDP only.
	Packets, LostPackets int
	// Retransmits of the sender, TCP only.
	Retransmits int
	// Seconds of the test.
	Seconds float64
	// Raw is iperf3's own JSON.
	Raw json.RawMessage
}

// Iperf runs iperf3 from this host to another one at address to, with more arguments such as -t 10 or -u.
func (h *Host) Iperf(ctx context.Context, server *Host, to netip.Addr, args ...string) (IperfResult, error) {
	const port = "5201"
	// Its own context: killing the server after a success is not an error.
	serving, stop := context.WithCancel(ctx)
	defer stop()
	var said tail
	s, err := server.Start(serving, &said, "iperf3", "-s", "-1", "-p", port, "--forceflush")
	if err != nil {
		return IperfResult{}, err
	}
	defer func() { stop(); <-s.Done() }()
	err = Await(ctx, "iperf3 to listen on "+server.Name, func(context.Context) error {
		select {
		case <-s.Done():
			return Final(fmt.Errorf("it ended: %s", said.String()))
		default:
		}
		if !strings.Contains(said.String(), "listening") {
			return errors.New("it said nothing yet")
		}
		return nil
	})
	if err != nil {
		return IperfResult{}, err
	}
	out, err := h.Run(ctx, "iperf3", append([]string{"-J", "-c", to.String(), "-p", port}, args...)...)
	if err != nil {
		return IperfResult{}, fmt.Errorf("%w: %s", err, out)
	}
	return parseIperf(out)
}

func parseIperf(out string) (IperfResult, error) {
	var report struct {
		Error string
		End   struct {
			Sum, SumSent, SumReceived struct {
				Seconds     float64
				Bytes       float64
				Bits        float64 `json:"bits_per_second"`
				Packets     int
				LostPackets int `json:"lost_packets"`
				Retransmits int
			}
		}
	}
	// iperf3 names them sum_sent and sum_received.
	out = strings.NewReplacer(`"sum_sent"`, `"SumSent"`, `"sum_received"`, `"SumReceived"`).Replace(out)
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		return IperfResult{}, fmt.Errorf("read iperf3's report: %w: %s", err, out)
	}
	if report.Error != "" {
		return IperfResult{}, fmt.Errorf("iperf3: %s", report.Error)
	}
	e := report.End
	return IperfResult{
		BitsPerSecond: e.SumReceived.Bits, Bytes: e.SumReceived.Bytes, Seconds: e.SumReceived.Seconds,
		Packets: e.Sum.Packets, LostPackets: e.Sum.LostPackets, Retransmits: e.SumSent.Retransmits,
		Raw: json.RawMessage(out),
	}, nil
}
