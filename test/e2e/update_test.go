package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ravencni/raven/test/cluster/node"
	"github.com/ravencni/raven/test/lab"
)

// rollingUpdate replaces every agent while nodes and pods ping across regions, and counts what is lost.
func rollingUpdate(w *world) {
	from := w.nodes["hangzhou-2"]
	pings := []*pinging{
		w.ping(from, w.spec("qingdao-2").IP4.String()),
		w.ping(from, w.podIP("early-qingdao-2").String()),
		w.ping(w.nodes["cloud-2"], w.podIP("early-hangzhou-2").String()),
	}
	old := w.kubectl("-n", "kube-system", "get", "pods", "-l", agentLabels, "-o", "jsonpath={.items[*].metadata.name}")
	w.kubectl("-n", "kube-system", "rollout", "restart", "daemonset/raven-agent-ds")
	w.kubectl("-n", "kube-system", "rollout", "status", "daemonset/raven-agent-ds", "--timeout=15m")
	now := w.kubectl("-n", "kube-system", "get", "pods", "-l", agentLabels, "-o", "jsonpath={.items[*].metadata.name}")
	for name := range strings.FieldsSeq(old) {
		if strings.Contains(now, name) {
			w.Errorf("the agent's pod %s is still there", name)
		}
	}
	for _, p := range pings {
		sent, answered := p.end(w)
		w.Logf("%s: %d sent, %d answered", p.what, sent, answered)
		if sent < 20 || answered != sent {
			w.Errorf("%s: %d of %d packets were answered:\n%s", p.what, answered, sent, p.output.String())
		}
	}
}

const agentLabels = "app.kubernetes.io/component=agent"

// pinging is a ping that runs.
type pinging struct {
	what    string
	process *lab.Process
	mu      sync.Mutex
	output  bytes.Buffer
}

// Write implements io.Writer.
func (p *pinging) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(b)
}

// ping begins to ping five times a second from a node.
func (w *world) ping(from *node.Node, to string) *pinging {
	w.Helper()
	p := &pinging{what: "ping from " + from.Name + " to " + to}
	var err error
	p.process, err = from.Start(w.Context(), p, "ping", "-i", "0.2", to)
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

// idle measures an agent that has nothing to do: it must stay below 64 MiB and 1 % of a core.
func idle(w *world) {
	const (
		over      = 30 * time.Second
		most      = 64 << 10 // KiB
		mostShare = 0.01
	)
	for _, name := range []string{master, "hangzhou-1", "hangzhou-2"} {
		pid := w.agentProcess(name)
		before, began := w.processorTime(pid), time.Now()
		timer := time.NewTimer(over)
		select {
		case <-timer.C:
		case <-w.Context().Done():
		}
		share := (w.processorTime(pid) - before).Seconds() / time.Since(began).Seconds()
		resident, anonymous := w.memory(pid)
		w.Logf("the agent on %s: %.2f %% of a core, %.1f MiB resident, %.1f MiB of it anonymous", name, 100*share,
			float64(resident)/1024, float64(anonymous)/1024)
		if resident > most {
			w.Errorf("the agent on %s uses %d KiB, more than %d", name, resident, most)
		}
		if share > mostShare {
			w.Errorf("the agent on %s uses %.2f %% of a core when idle, more than %.0f %%", name, 100*share, 100*mostShare)
		}
	}
}

// agentProcess finds the agent of a node in the enclosure's pid namespace.
func (w *world) agentProcess(node string) int {
	w.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	w.must(err)
	for _, c := range commands {
		line, err := os.ReadFile(c)
		if err == nil && strings.Contains(string(line), "raven-agent\x00--node-name="+node+"\x00") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(c)))
			w.must(err)
			return pid
		}
	}
	w.Fatalf("no agent of %s runs", node)
	return 0
}

// processorTime is what a process has used, user and system.
func (w *world) processorTime(pid int) time.Duration {
	w.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	w.must(err)
	fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))
	var ticks int
	for _, i := range []int{11, 12} { // utime and stime, fields 14 and 15 of all
		n, err := strconv.Atoi(fields[i])
		w.must(err)
		ticks += n
	}
	const perSecond = 100 // USER_HZ of every architecture that Go runs on
	return time.Duration(ticks) * time.Second / perSecond
}

// memory is resident and anonymous memory in KiB.
func (w *world) memory(pid int) (resident, anonymous int) {
	w.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	w.must(err)
	for line := range strings.Lines(string(content)) {
		for key, into := range map[string]*int{"VmRSS:": &resident, "RssAnon:": &anonymous} {
			if rest, found := strings.CutPrefix(line, key); found {
				_, err := fmt.Sscan(rest, into)
				w.must(err)
			}
		}
	}
	return resident, anonymous
}
