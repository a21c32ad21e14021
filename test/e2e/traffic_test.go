package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/ravencni/raven/test/cluster/node"
	"github.com/ravencni/raven/test/lab"
)

// underTraffic has nodes and pods ping across regions, and two streams of iperf3 run from pod to pod, while something happens,
// and counts what is lost.
func (w *world) underTraffic(what string, happens func()) {
	w.Helper()
	from := w.nodes["hangzhou-2"]
	pings := []*pinging{
		w.ping(from, w.podIP("early-qingdao-2").String()),
		w.ping(w.nodes["cloud-2"], w.podIP("early-hangzhou-2").String()),
	}
	if node := w.spec("qingdao-2").IP4; node != w.spec("cloud-2").IP4 { // else it is routed nowhere
		pings = append(pings, w.ping(from, node.String()))
	}
	streams := []*stream{
		w.stream("hangzhou-2", "qingdao-2", 5201, "-b", "8M"),
		w.stream("hangzhou-2", "qingdao-2", 5202, "-u", "-b", "2M", "-l", "1200"),
	}
	happens()
	for _, s := range streams {
		w.Logf("%s: %s", what, s.end(w))
	}
	for _, p := range pings {
		sent, answered := p.end(w)
		w.Logf("%s: %s: %d sent, %d answered", what, p.what, sent, answered)
		if sent < 20 || answered != sent {
			w.Errorf("%s: %s: %d of %d packets were answered:\n%s", what, p.what, answered, sent, p.output.String())
		}
	}
}

// written is what a program has written so far.
type written struct {
	mu     sync.Mutex
	output bytes.Buffer
}

// Write implements io.Writer.
func (p *written) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(b)
}

func (p *written) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// pinging is a ping that runs.
type pinging struct {
	what    string
	process *lab.Process
	output  written
}

// ping begins to ping five times a second from a node.
func (w *world) ping(from *node.Node, to string) *pinging {
	w.Helper()
	p := &pinging{what: "ping from " + from.Name + " to " + to}
	var err error
	p.process, err = from.Start(w.Context(), &p.output, "ping", "-i", "0.2", to)
	w.must(err)
	return p
}

var sequence = regexp.MustCompile(`icmp_seq=(\d+) `)

// end stops the ping and returns the number of the last packet that was answered, and how many were. Those behind it may
// be on their way.
func (p *pinging) end(w *world) (last, answered int) {
	w.Helper()
	w.must(p.process.Stop())
	seen := map[string]bool{}
	for _, m := range sequence.FindAllStringSubmatch(p.output.String(), -1) {
		n, err := strconv.Atoi(m[1])
		w.must(err)
		last, seen[m[1]] = max(last, n), true
	}
	return last, len(seen)
}

// stream is an iperf3 that sends from the early pod of a node to that of another, until it is interrupted.
type stream struct {
	what           string
	udp            bool
	server, client *lab.Process
	taken, sent    written
	// sender is the node of the pod that sends, begun what its kernel had counted of TCP before.
	sender string
	begun  map[string]int
}

// inPod is a command that runs a program of the node's in the network of its early pod.
func (w *world) inPod(node string, command ...string) []string {
	w.Helper()
	const find = `for ns in /run/netns/*; do
		! nsenter --net="$ns" ip -4 -oneline address show | grep -qF "inet $1/" || echo "$ns"; done`
	out, err := w.nodes[node].Run(w.Context(), "sh", "-euc", find, "sh", w.podIP("early-"+node).String())
	w.must(err)
	if strings.Count(out, "\n") != 1 {
		w.Fatalf("the early pod of %s has the network namespaces %q", node, out)
	}
	return append([]string{"nsenter", "--net=" + strings.TrimSpace(out)}, command...)
}

func (w *world) stream(from, to string, port int, args ...string) *stream {
	w.Helper()
	s := &stream{udp: args[0] == "-u", sender: from, begun: w.tcpCounters(from)}
	s.what = fmt.Sprintf("iperf3 %s from the pod on %s to that on %s", strings.Join(args, " "), from, to)
	command := w.inPod(to, "iperf3", "-s", "-1", "-J", "-p", strconv.Itoa(port))
	var err error
	s.server, err = w.nodes[to].Start(w.Context(), &s.taken, command[0], command[1:]...)
	w.must(err)
	command = w.inPod(to, "sh", "-c", fmt.Sprintf("ss -Hlnt sport = :%d", port))
	w.await(s.what+" to be awaited", func(ctx context.Context) error {
		out, err := w.nodes[to].Run(ctx, command[0], command[1:]...)
		if err == nil && out == "" {
			err = errors.New("nobody listens")
		}
		return err
	})
	const longest = "3600"
	command = w.inPod(from, append([]string{"iperf3", "-J", "-c", w.podIP("early-" + to).String(), "-p", strconv.Itoa(port), "-t", longest},
		args...)...)
	s.client, err = w.nodes[from].Start(w.Context(), &s.sent, command[0], command[1:]...)
	w.must(err)
	return s
}

// duplicates is the kernel's counter of segments that came twice by the word of their receivers.
const duplicates = "TCPDSACKRecvSegs"

// tcpCounters are those of Linux (TcpExt in /proc/net/netstat) in the early pod of a node.
func (w *world) tcpCounters(node string) map[string]int {
	w.Helper()
	command := w.inPod(node, "cat", "/proc/net/netstat")
	out, err := w.nodes[node].Run(w.Context(), command[0], command[1:]...)
	w.must(err)
	lines := strings.Split(out, "\n")
	names, values := strings.Fields(lines[0]), strings.Fields(lines[1])
	if len(names) != len(values) || names[0] != "TcpExt:" {
		w.Fatalf("the kernel's counters of TCP are\n%s", out)
	}
	counters := map[string]int{}
	for i, name := range names[1:] {
		counters[name], err = strconv.Atoi(values[i+1])
		w.must(err)
	}
	return counters
}

// report is the part of iperf3's own that counts here.
type report struct {
	Intervals []struct {
		Sum struct{ Bytes float64 }
	}
	End struct {
		Sum struct {
			Packets     int
			LostPackets int `json:"lost_packets"`
		}
		SumSent     struct{ Retransmits int }        `json:"sum_sent"`
		SumReceived struct{ Bytes, Seconds float64 } `json:"sum_received"`
	}
}

// end interrupts a stream. No datagram and no segment may be lost, and no second of a connection be silent.
func (s *stream) end(w *world) string {
	w.Helper()
	w.must(s.client.Signal(os.Interrupt))
	<-s.client.Done() // its exit status says that it was interrupted
	<-s.server.Done()
	var taken, sent report
	for text, into := range map[*written]*report{&s.taken: &taken, &s.sent: &sent} {
		if err := json.Unmarshal([]byte(text.String()), into); err != nil {
			w.Fatalf("%s: read its report: %v:\n%s", s.what, err, text.String())
		}
	}
	seconds := taken.End.SumReceived.Seconds
	if seconds < 10 {
		w.Errorf("%s: ended after %.0f s", s.what, seconds)
	}
	if s.udp {
		if taken.End.Sum.LostPackets > 0 || taken.End.Sum.Packets < 1000 {
			w.Errorf("%s: %d of %d datagrams were lost", s.what, taken.End.Sum.LostPackets, taken.End.Sum.Packets)
		}
		return fmt.Sprintf("%s: %d datagrams in %.0f s, %d lost", s.what, taken.End.Sum.Packets, seconds, taken.End.Sum.LostPackets)
	}
	for second, i := range taken.Intervals[:max(0, len(taken.Intervals)-1)] {
		if i.Sum.Bytes == 0 {
			w.Errorf("%s: nothing came in second %d", s.what, second)
		}
	}
	// What was sent again and had arrived is reported by the receiver (RFC 2883); the rest was lost. A busy machine acknowledges
	// late, and the sender probes.
	again := sent.End.SumSent.Retransmits
	arrivedTwice := w.tcpCounters(s.sender)[duplicates] - s.begun[duplicates]
	if again > arrivedTwice {
		w.Errorf("%s: of %d segments that were sent again %d had been lost", s.what, again, again-arrivedTwice)
	}
	return fmt.Sprintf("%s: %.0f MB in %.0f s, %d segments were sent again, %d of them arrived twice", s.what, taken.End.SumReceived.Bytes/1e6, seconds,
		again, arrivedTwice)
}
