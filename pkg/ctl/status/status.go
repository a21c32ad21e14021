// Package status prints an agent's report for people.
package status

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ravencni/raven/pkg/agent/local"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/ctl/table"
	"github.com/ravencni/raven/pkg/topology"
)

// Write prints the report in at most table.Width columns.
func Write(w io.Writer, r *local.Report) error {
	for _, part := range []func(io.Writer, *local.Report) error{head, regions, peers, traffic, appliers, problems} {
		if err := part(w, r); err != nil {
			return err
		}
	}
	return nil
}

func head(w io.Writer, r *local.Report) error {
	t := table.Table{}
	region := "in no region"
	if r.Region != "" {
		region = fmt.Sprintf("%s of region %s", r.Role, r.Region)
	}
	t.Add("node", fmt.Sprintf("%s, %s", r.Node, region))
	t.Add("agent", fmt.Sprintf("%s, up %s", r.Version, age(r.At.Sub(r.Started))))
	t.Add("input", input(r))
	t.Add("datapath", strings.ToLower(string(r.Datapath))+because(r.Why))
	if r.Datapath == v1beta1.DatapathAccelerated {
		t.Add("pods", fmt.Sprintf("%d accelerated, %d by the kernel's tables", r.PodsAccelerated, r.PodsNotAccelerated))
	}
	if r.Driver != "" {
		t.Add("tunnel", fmt.Sprintf("%s, UDP port %d, public key %s", r.Driver, r.ListenPort, r.PublicKey))
	}
	if p := r.Plan; p != nil && p.Overlay != nil {
		t.Add("mtu", fmt.Sprintf("underlay %d, raven0 %d%s", r.UnderlayMTU, p.Overlay.MTU, tunnelMTU(p)))
	}
	return t.Write(w)
}

func input(r *local.Report) string {
	text := fmt.Sprintf("%d gateways, %d nodes, %d tunnel endpoints", r.Gateways, r.Nodes, r.Endpoints)
	switch {
	case r.Held != "":
		text += "; NOT APPLIED: " + r.Held
	case !r.Synced && r.FromSnapshot:
		text += "; from the snapshot on disk, waiting: " + r.Waiting
	case !r.Synced:
		text += "; waiting: " + r.Waiting
	}
	return text
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

func tunnelMTU(p *topology.Plan) string {
	if p.Tunnel == nil {
		return ""
	}
	return fmt.Sprintf(", tunnel %d", p.Tunnel.MTU)
}

// regions lists the other regions and how they are reached.
func regions(w io.Writer, r *local.Report) error {
	if r.Plan == nil || len(r.Plan.NextHops) == 0 {
		return nil
	}
	prefixes := map[string]int{}
	for _, p := range r.Plan.Prefixes {
		if p.Scope == topology.ScopeRemote {
			prefixes[p.NextHop]++
		}
	}
	t := table.Table{Heading: []string{"REGION", "PREFIXES", "NEXT HOP", "BY", "MTU"}}
	for _, h := range r.Plan.NextHops {
		name, ok := strings.CutPrefix(h.ID, "region/")
		if !ok {
			continue
		}
		t.Add(name, fmt.Sprint(prefixes[h.ID]), h.Node, string(h.Kind), fmt.Sprint(h.MTU))
	}
	return section(w, &t)
}

func peers(w io.Writer, r *local.Report) error {
	t := table.Table{Heading: []string{"PEER", "REGION", "STATE", "HANDSHAKE", "RTT", "LOSS", "MTU", "RECEIVED", "SENT"}}
	var messages []string
	for _, p := range r.Peers {
		t.Add(p.Node, p.Region, p.State, seconds(p.HandshakeAge), millis(p.RTT), percent(p.Loss), fmt.Sprint(p.MTU),
			size(p.RxBytes), size(p.TxBytes))
		for _, m := range []struct{ before, text string }{
			{"at ", p.Endpoint}, {"relays ", strings.Join(p.Relays, ", ")}, {"", p.Message},
		} {
			if m.text != "" {
				messages = append(messages, p.Node+": "+m.before+m.text)
			}
		}
	}
	if err := section(w, &t); err != nil {
		return err
	}
	for _, m := range messages {
		if _, err := fmt.Fprintln(w, strings.Join(table.Wrap(m, table.Width), "\n  ")); err != nil {
			return err
		}
	}
	return nil
}

func traffic(w io.Writer, r *local.Report) error {
	sums := map[string]uint64{}
	total := uint64(0)
	for _, c := range r.Counters {
		if c.Reason == "underlay" || c.Reason == "decapsulated" {
			continue // it has only reached the underlay's device: what Raven does with it is counted at the next one
		}
		sums[c.Verdict] += c.Packets
		total += c.Packets
	}
	if total == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "\npackets: %d redirected (%.0f%%), %d left to the kernel, %d dropped (ravenctl drops says why)\n",
		sums["redirect"], 100*float64(sums["redirect"])/float64(total), sums["pass"], sums["drop"])
	return err
}

func appliers(w io.Writer, r *local.Report) error {
	t := table.Table{Heading: []string{"PART", "RUNS", "ERRORS", "WRITES", "NOW"}}
	for _, a := range r.Appliers {
		now := "ok"
		if why := r.Failed[a.Name]; why != "" {
			now = why
		}
		t.Add(a.Name, fmt.Sprint(a.Runs), fmt.Sprint(a.Errors), fmt.Sprint(a.Changes), now)
	}
	return section(w, &t)
}

func problems(w io.Writer, r *local.Report) error {
	t := table.Table{Heading: []string{"PROBLEM", "REASON", "WHAT TO DO"}}
	for _, p := range r.Problems {
		t.Add(p.Object, p.Reason, p.Message)
	}
	if err := section(w, &t); err != nil {
		return err
	}
	for _, warning := range r.Warnings {
		if _, err := fmt.Fprintln(w, "warning: "+strings.Join(table.Wrap(warning, table.Width-9), "\n         ")); err != nil {
			return err
		}
	}
	if r.Elsewhere > 0 {
		_, err := fmt.Fprintf(w, "%d more problems of the cluster are named by other nodes\n", r.Elsewhere)
		return err
	}
	return nil
}

func section(w io.Writer, t *table.Table) error {
	if t.Rows() == 0 {
		return nil
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return err
	}
	return t.Write(w)
}

func seconds(s *float64) string {
	if s == nil {
		return "never"
	}
	return age(time.Duration(*s * float64(time.Second)))
}

func age(d time.Duration) string {
	switch {
	case d < 0:
		return "future!"
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	default:
		return fmt.Sprintf("%ds", d/time.Second)
	}
}

func millis(s *float64) string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("%.1fms", *s*1000)
}

func percent(ratio *float64) string {
	if ratio == nil {
		return ""
	}
	return fmt.Sprintf("%.0f%%", *ratio*100)
}

// size uses powers of 1024.
func size(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") + units[i]
}
