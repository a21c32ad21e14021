// Package drops reads why this node's programs and packet filter let go of packets, from the kernel itself: it works
// without an agent.
package drops

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"

	"github.com/ravencni/raven/pkg/ctl/table"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel"
	"github.com/ravencni/raven/pkg/datapath/filter"
)

// Filter is the Where of what the nft table raven counts.
const Filter = "nft"

// Count is what was counted in one place for one reason, since the counters were made or between two looks.
type Count struct {
	// Verdict is drop, pass or redirect.
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	// Where is a BPF program, such as raven_from_pod, or nft.
	Where   string `json:"where"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	Meaning string `json:"meaning"`
}

// Read returns all counters of the node, those of zero included: drops first, then by verdict, reason and place.
func Read(ctx context.Context) ([]Count, error) {
	programs, err := accel.ReadCounters(ctx, datapath.PinRoot)
	var out []Count
	for _, c := range programs {
		out = append(out, Count{c.Verdict, c.Reason, c.Program, c.Packets, c.Bytes, Meaning(c.Verdict, c.Reason)})
	}
	counters, filterErr := filter.New(filter.Options{}).Counters(ctx)
	for reason, c := range counters {
		out = append(out, Count{"drop", reason, Filter, c.Packets, c.Bytes, Meaning("drop", reason)})
	}
	slices.SortFunc(out, before)
	return out, errors.Join(err, filterErr)
}

// Since is what was counted between two looks. A counter that fell was made anew in between: what it shows counts.
func Since(earlier, now []Count) []Count {
	type key struct{ verdict, reason, where string }
	old := make(map[key]Count, len(earlier))
	for _, c := range earlier {
		old[key{c.Verdict, c.Reason, c.Where}] = c
	}
	out := slices.Clone(now)
	for i, c := range out {
		if o := old[key{c.Verdict, c.Reason, c.Where}]; o.Packets <= c.Packets && o.Bytes <= c.Bytes {
			out[i].Packets -= o.Packets
			out[i].Bytes -= o.Bytes
		}
	}
	return out
}

// Seen leaves out what counted nothing, and unless all is set what was not dropped.
func Seen(counts []Count, all bool) []Count {
	return slices.DeleteFunc(slices.Clone(counts), func(c Count) bool {
		return c.Packets == 0 || !all && c.Verdict != "drop"
	})
}

// Write prints counts as a table.
func Write(w io.Writer, counts []Count) error {
	t := table.Table{Heading: []string{"VERDICT", "REASON", "WHERE", "PACKETS", "BYTES", "MEANING"}}
	for _, c := range counts {
		t.Add(c.Verdict, c.Reason, c.Where, strconv.FormatUint(c.Packets, 10), strconv.FormatUint(c.Bytes, 10), c.Meaning)
	}
	return t.Write(w)
}
