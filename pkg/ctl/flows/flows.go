// Package flows reads what this node's programs have decided about the flows of its pods, from the kernel itself: it works
// without an agent.
package flows

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/ravencni/raven/pkg/ctl/drops"
	"github.com/ravencni/raven/pkg/ctl/table"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel"
)

// Flow is one direction of a TCP connection, or of what UDP sends between two ports.
type Flow struct {
	Protocol    string         `json:"protocol"`
	Source      netip.AddrPort `json:"source"`
	Destination netip.AddrPort `json:"destination"`
	Accelerated bool           `json:"accelerated"`
	// Reason why it is not accelerated, and what that means; empty where it is.
	Reason  string `json:"reason,omitempty"`
	Meaning string `json:"meaning,omitempty"`
	// AgeSeconds since conntrack was asked about it.
	AgeSeconds float64 `json:"ageSeconds"`
}

// Read returns the flows whose packets came within a time (0: however long ago) from or to one of the addresses (none
// given: any): accelerated ones first, then the latest.
func Read(ctx context.Context, within time.Duration, addresses ...netip.Addr) ([]Flow, error) {
	all, err := accel.ReadFlows(ctx, datapath.PinRoot)
	if err != nil {
		return nil, err
	}
	return choose(all, within, addresses), nil
}

func choose(all []accel.Flow, within time.Duration, addresses []netip.Addr) []Flow {
	out := []Flow{}
	for _, f := range all {
		ours := len(addresses) == 0 || slices.Contains(addresses, f.Source.Addr()) || slices.Contains(addresses, f.Destination.Addr())
		if !ours || within > 0 && f.Age > within {
			continue
		}
		shown := Flow{Protocol: f.Protocol, Source: f.Source, Destination: f.Destination, Accelerated: f.Accelerated, Reason: f.Reason,
			AgeSeconds: f.Age.Seconds()}
		if !f.Accelerated {
			shown.Meaning = drops.Meaning("pass", f.Reason)
		}
		out = append(out, shown)
	}
	slices.SortFunc(out, func(a, b Flow) int {
		return cmp.Or(first(b.Accelerated)-first(a.Accelerated), cmp.Compare(a.AgeSeconds, b.AgeSeconds), a.Source.Compare(b.Source), a.Destination.Compare(b.Destination))
	})
	return out
}

func first(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// Write prints flows as a table, at most limit of them (0: all).
func Write(w io.Writer, all []Flow, limit int) error {
	shown := all
	if limit > 0 && len(all) > limit {
		shown = all[:limit]
	}
	t := table.Table{Heading: []string{"PROTO", "VERDICT", "ASKED", "SOURCE AND DESTINATION"}}
	for _, f := range shown {
		verdict := "accelerated"
		if !f.Accelerated {
			verdict = f.Reason
		}
		t.Add(f.Protocol, verdict, fmt.Sprintf("%.0f s ago", f.AgeSeconds), f.Source.String()+" -> "+f.Destination.String())
	}
	if err := t.Write(w); err != nil {
		return err
	}
	if n := len(all) - len(shown); n > 0 {
		_, err := fmt.Fprintf(w, "%d more: name an address, or use --limit=0\n", n)
		return err
	}
	return nil
}
