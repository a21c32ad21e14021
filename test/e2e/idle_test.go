package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// idle measures an agent that has nothing to do: it must stay below 64 MiB and 1 % of a core.
func idle(w *world) {
	const (
		over      = 30 * time.Second
		most      = 64 << 10 // KiB
		mostShare = 0.01
	)
	type usage struct {
		pid    int
		before time.Duration
		began  time.Time
	}
	agents := map[string]usage{}
	for _, name := range []string{master, "hangzhou-1", "hangzhou-2"} {
		pid := w.agentProcess(name)
		agents[name] = usage{pid, w.processorTime(pid), time.Now()}
	}
	w.rest(over)
	for name, a := range agents {
		share := (w.processorTime(a.pid) - a.before).Seconds() / time.Since(a.began).Seconds()
		resident, anonymous := w.memory(a.pid)
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
