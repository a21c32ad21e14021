package agent

import (
	"slices"
	"strings"
	"sync"
)

// Notice says that something changed.
type Notice struct {
	// What in a few words, for the log.
	What string
	// Part names the one applier whose kernel state alone may be concerned, such as acceleration where a pod's device
	// came or went; empty: everything has to be looked at.
	Part string
}

// notices are those that the loop has not taken yet, each once. Senders never wait, and none is lost.
type notices struct {
	mu   sync.Mutex
	list []Notice
	wake chan struct{}
}

func newNotices() *notices { return &notices{wake: make(chan struct{}, 1)} }

func (n *notices) give(notice Notice) {
	n.mu.Lock()
	if !slices.Contains(n.list, notice) {
		n.list = append(n.list, notice)
	}
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *notices) take() []Notice {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.list
	n.list = nil
	return out
}

// reasons are why the next pass runs.
type reasons []Notice

// add reports whether it is the first one.
func (r *reasons) add(n Notice) bool {
	if slices.Contains(*r, n) {
		return false
	}
	*r = append(*r, n)
	return len(*r) == 1
}

// take returns the reasons in words, and the parts that they concern; no part: all.
func (r *reasons) take() (why string, parts []string) {
	const shown = 4
	var words []string
	whole := false
	for _, n := range *r {
		words = append(words, n.What)
		whole = whole || n.Part == ""
		parts = append(parts, n.Part)
	}
	*r = nil
	if whole {
		parts = nil
	}
	if len(words) > shown {
		words = append(words[:shown:shown], "and more")
	}
	return strings.Join(words, ", "), parts
}
