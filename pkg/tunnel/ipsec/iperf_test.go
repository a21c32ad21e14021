package ipsec

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	testns "github.com/ravencni/raven/test/netns"
)

// TestRenewingKeysUnderIperf3LosesNothing has a TCP connection go as fast as it can, and a stream of datagrams beside it, each way,
// while keys are renewed. The connection's window is smaller than every queue on its way, so that what it loses is lost by
// renewals.
func TestRenewingKeysUnderIperf3LosesNothing(t *testing.T) {
	needsCharon(t)
	rate := "4M"
	if os.Getenv("RAVEN_TEST_SLOWLY") != "" {
		rate = "400K"
	}
	testns.Run(t, func(t *testing.T) {
		east, west := renewing(t)
		east.awaitPing("-I", "10.1.0.1", "10.2.0.1")
		first := east.associations()
		runs := []*iperf{
			newIperf(t, east, "10.1.0.1", west, "10.2.0.1", "5201", "-w", "64K"),
			newIperf(t, west, "10.2.0.1", east, "10.1.0.1", "5202", "-w", "64K"),
			newIperf(t, east, "10.1.0.1", west, "10.2.0.1", "5203", "-u", "-b", rate, "-l", "1200"),
			newIperf(t, west, "10.2.0.1", east, "10.1.0.1", "5204", "-u", "-b", rate, "-l", "1200"),
		}
		east.awaitRenewals(first)
		for _, r := range runs {
			r.end()
		}
	})
}

// iperf is an iperf3 from one gateway's pod to another's.
type iperf struct {
	t              *testing.T
	what           string
	udp            bool
	from           *gateway
	client, server *exec.Cmd
	sent, taken    bytes.Buffer
	twice          int
}

func newIperf(t *testing.T, from *gateway, source string, to *gateway, destination, port string, args ...string) *iperf {
	t.Helper()
	r := &iperf{t: t, from: from, udp: args[0] == "-u", twice: from.arrivedTwice(), what: fmt.Sprintf("iperf3 %s from %s", strings.Join(args, " "), from.name)}
	r.server = exec.Command("iperf3", "-s", "-1", "-J", "-B", destination, "-p", port)
	r.server.Stdout = &r.taken
	to.do(r.server.Start)
	to.await("iperf3 to listen", func() error {
		return to.try(exec.Command("sh", "-c", "ss -Hlnt sport = :"+port+" | grep -q ."))
	})
	r.client = exec.Command("iperf3", append([]string{"-c", destination, "-B", source, "-p", port, "-J", "-t", "3600"}, args...)...)
	r.client.Stdout = &r.sent
	from.do(r.client.Start)
	t.Cleanup(func() {
		_ = r.client.Process.Kill() // in case that the test ended before
		_ = r.server.Process.Kill()
	})
	return r
}

// end interrupts it, and holds it to having lost nothing.
func (r *iperf) end() {
	r.t.Helper()
	if err := r.client.Process.Signal(os.Interrupt); err != nil {
		r.t.Fatal(err)
	}
	_ = r.client.Wait() // their status says that they were interrupted
	_ = r.server.Wait()
	var sent, taken struct {
		End struct {
			Sum struct {
				Packets     int
				LostPackets int `json:"lost_packets"`
			}
			SumSent     struct{ Retransmits int } `json:"sum_sent"`
			SumReceived struct {
				Bytes   float64
				Seconds float64
			} `json:"sum_received"`
		}
	}
	for text, into := range map[*bytes.Buffer]any{&r.sent: &sent, &r.taken: &taken} {
		if err := json.Unmarshal(text.Bytes(), into); err != nil {
			r.t.Fatalf("%s: read its report: %v:\n%s", r.what, err, text)
		}
	}
	got := taken.End.SumReceived
	if r.udp {
		r.t.Logf("%s: %d datagrams in %.0f s, %d lost", r.what, taken.End.Sum.Packets, got.Seconds, taken.End.Sum.LostPackets)
		if taken.End.Sum.LostPackets > 0 || taken.End.Sum.Packets < 100 {
			r.t.Errorf("%s: %d of %d datagrams were lost", r.what, taken.End.Sum.LostPackets, taken.End.Sum.Packets)
		}
		return
	}
	// What was sent again and had arrived is reported by the receiver (RFC 2883): a sender that waited long on a busy machine.
	again, twice := sent.End.SumSent.Retransmits, r.from.arrivedTwice()-r.twice
	r.t.Logf("%s: %.1f MB in %.0f s, %d segments sent again, %d of them arrived twice", r.what, got.Bytes/1e6, got.Seconds, again, twice)
	if again > twice || got.Bytes < 100e3 {
		r.t.Errorf("%s: %d segments were lost of %.0f bytes", r.what, again-twice, got.Bytes)
	}
}

// try runs a command in the gateway's namespace.
func (g *gateway) try(cmd *exec.Cmd) (err error) {
	g.do(func() error { err = cmd.Run(); return nil })
	return err
}

// arrivedTwice is how many segments that this gateway sent came twice by the word of their receivers.
func (g *gateway) arrivedTwice() int {
	g.t.Helper()
	var text []byte
	g.do(func() (err error) {
		text, err = exec.CommandContext(context.Background(), "cat", "/proc/net/netstat").Output()
		return err
	})
	lines := strings.Split(string(text), "\n")
	names, values := strings.Fields(lines[0]), strings.Fields(lines[1])
	for i, name := range names {
		if name == "TCPDSACKRecvSegs" {
			n, err := strconv.Atoi(values[i])
			if err != nil {
				g.t.Fatal(err)
			}
			return n
		}
	}
	g.t.Fatalf("the kernel counts no TCPDSACKRecvSegs: %s", text)
	return 0
}
