package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/ctl/doctor"
	"github.com/ravencni/raven/test/lab"
)

// diagnosisTakes is the most that a diagnosis may take, by the project's promise.
const diagnosisTakes = 5 * time.Second

// noticedWithin is the most that an agent may need to notice a fault first: it looks at everything every 30 s.
const noticedWithin = 45 * time.Second

// world is a lab with ravenctl: regions east and west, each a gateway (-1) and a member (-2).
type world struct {
	*testing.T
	ctx  context.Context
	lab  *lab.Lab
	tool string // ravenctl, where all nodes see it
	// moves are the values that the watched metrics have had.
	moves movement
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if !lab.Enclosed() {
		t.Skip("needs root to make namespaces")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	l, err := lab.Start(ctx, "faults", lab.Pair())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	tool, err := l.Tool("ravenctl")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, ctx: ctx, lab: l, tool: tool, moves: movement{map[string]int{}, map[string]map[string]*series{}}}
	if err := l.StartAgents(ctx, lab.AgentOptions{Acceleration: "auto"}); err != nil {
		t.Fatal(err)
	}
	return w
}

// sh runs a shell line on a node, pod, NAT box or the router, and returns what it printed.
func (w *world) sh(t *testing.T, host, line string) string {
	t.Helper()
	out, err := w.lab.Host(host).Run(w.ctx, "sh", "-ec", line)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// examine runs ravenctl doctor on a node.
func (w *world) examine(t *testing.T, node string, flags ...string) ([]doctor.Finding, time.Duration) {
	t.Helper()
	began := time.Now()
	if os.Getenv("RAVEN_DEBUG") != "" {
		out, err := w.lab.Host(node).Run(w.ctx, w.tool, "status")
		t.Log(out, err, w.lab.Agent(node).LogTail(5))
	}
	out, err := w.lab.Host(node).Run(w.ctx, w.tool, append([]string{"doctor", "-o", "json"}, flags...)...)
	took := time.Since(began)
	var found []doctor.Finding
	if jsonErr := json.Unmarshal([]byte(out), &found); jsonErr != nil {
		t.Fatalf("doctor on %s printed no JSON: %v, %v: %s", node, jsonErr, err, out)
	}
	if (err != nil) != (doctor.Worst(found) == doctor.Fail) {
		t.Errorf("doctor on %s ended with %v and found %s", node, err, doctor.Worst(found))
	}
	return found, took
}

// says looks for a finding of a check, about a node, that holds all words.
func says(found []doctor.Finding, check, node string, words ...string) bool {
	for _, f := range found {
		if f.Check != check || f.Level == doctor.OK || f.Node != node || f.Remedy == "" {
			continue
		}
		all := true
		for _, word := range words {
			all = all && strings.Contains(f.Says, word)
		}
		if all {
			return true
		}
	}
	return false
}

// bad lists what was found, for messages.
func bad(found []doctor.Finding) string {
	var b strings.Builder
	for _, f := range found {
		if f.Level != doctor.OK {
			fmt.Fprintf(&b, "\n  %s %s on %s: %s", f.Level, f.Check, f.Node, f.Says)
		}
	}
	return b.String()
}

// fault is one way to break a lab.
type fault struct {
	name string
	// at is where inject and undo run: a node, a NAT box, the router.
	at string
	// inject breaks; undo mends. An empty undo: the agent of at is started, which repairs, and stopped again.
	inject, undo string
	// do is an inject that no shell line can be.
	do func(*testing.T, *world)

	// asked is the node that doctor runs on; empty: at.
	asked string
	flags []string
	// What doctor must say: the check, the node (empty: asked) and words of the cause.
	check, blames string
	words         []string
}

// diagnose injects a fault, expects the diagnosis within the promised time, and mends.
func (w *world) diagnose(t *testing.T, f fault, agent bool) {
	asked := f.asked
	if asked == "" {
		asked = f.at
	}
	blames := f.blames
	if blames == "" {
		blames = asked
	}
	before, _ := w.examine(t, asked, f.flags...)
	if says(before, f.check, blames, f.words...) {
		t.Fatalf("doctor on %s finds %v before it is there:%s", asked, f.words, bad(before))
	}
	if f.do != nil {
		f.do(t, w)
	} else {
		w.sh(t, f.at, f.inject)
	}
	var took time.Duration
	ctx, cancel := context.WithTimeout(w.ctx, noticedWithin)
	defer cancel()
	err := lab.Await(ctx, "the diagnosis", func(ctx context.Context) error {
		var found []doctor.Finding
		// What an agent has to notice first may need a second look; each look must be quick.
		if found, took = w.examine(t, asked, f.flags...); took > diagnosisTakes {
			t.Errorf("the diagnosis took %s", took)
		}
		if !says(found, f.check, blames, f.words...) {
			return fmt.Errorf("doctor on %s does not blame %s for %v in check %s:%s", asked, blames, f.words, f.check, bad(found))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	} else {
		t.Logf("diagnosed in %s", took.Round(time.Millisecond))
	}
	w.look(t)
	if f.undo != "" {
		w.sh(t, f.at, f.undo)
		return
	}
	w.repair(t, f.at, agent)
}

// repair starts the agent of a node, waits until it has repaired everything, and stops it again unless it is to run.
func (w *world) repair(t *testing.T, node string, run bool) {
	t.Helper()
	if run {
		if err := w.lab.AwaitReady(w.ctx, node); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := w.lab.RestartAgents(w.ctx, node); err != nil {
		t.Fatal(err)
	}
	w.stop(t, node)
}

func (w *world) stop(t *testing.T, node string) {
	t.Helper()
	if err := w.lab.Agent(node).Stop(); err != nil {
		t.Fatal(err)
	}
}
