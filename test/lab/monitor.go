package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
)

// Monitor collects what changes in a host's kernel, as `ip monitor`, `bridge monitor fdb` and `nft monitor` tell it.
type Monitor struct {
	host    *Host
	stop    context.CancelFunc
	streams map[string]*stream
}

type stream struct {
	process *Process
	said    tail
	read    int // bytes that Events has returned already
}

// markers tells the marks of all monitors apart.
var markers atomic.Int64

// Monitor begins to collect.
func (h *Host) Monitor(ctx context.Context) (*Monitor, error) {
	ctx, cancel := context.WithCancel(ctx)
	m := &Monitor{host: h, stop: cancel, streams: map[string]*stream{}}
	for name, args := range map[string][]string{
		"ip":     {"ip", "-o", "monitor", "label", "all"},
		"bridge": {"bridge", "-o", "monitor", "fdb"},
		"nft":    {"stdbuf", "-oL", "nft", "monitor"},
	} {
		s := &stream{}
		var err error
		if s.process, err = h.Start(ctx, &s.said, args[0], args[1:]...); err != nil {
			return nil, errors.Join(err, m.Stop())
		}
		m.streams[name] = s
	}
	if _, err := m.Events(ctx); err != nil {
		return nil, errors.Join(err, m.Stop())
	}
	return m, nil
}

// Stop ends the collection.
func (m *Monitor) Stop() error {
	m.stop()
	for _, s := range m.streams {
		<-s.process.Done() // killed; how it ended says nothing
	}
	return nil
}

// Events returns the changes since the last call, one per line: those of rtnetlink with their label, such as [ROUTE],
// those of the forwarding database with [FDB], those of nftables with [NFT]. Left out are neighbours that the kernel
// finds and forgets by itself, and bridges' learned addresses.
func (m *Monitor) Events(ctx context.Context) ([]string, error) {
	mark := fmt.Sprintf("mark%d", markers.Add(1))
	// A change of each kind that nobody else makes; the kernel tells of changes in their order.
	bridge := "ip link add " + mark + " type bridge && ip link del " + mark
	commands := map[string]string{
		"ip": bridge, "bridge": bridge,
		"nft": "nft add table ip " + mark + " && nft delete table ip " + mark,
	}
	// Collecting has only begun once a mark was seen, so marks are made until then.
	err := Await(ctx, "the monitors on "+m.host.Name+" to tell of a mark", func(ctx context.Context) error {
		for name, s := range m.streams {
			if strings.Contains(s.said.String()[s.read:], mark) {
				continue
			}
			if _, err := m.host.Run(ctx, "sh", "-c", commands[name]); err != nil {
				return err
			}
			return fmt.Errorf("%s monitor said %q", name, s.said.String()[s.read:])
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var events []string
	for name, s := range m.streams {
		text := s.said.String()[s.read:]
		text = text[:strings.LastIndexByte(text, '\n')+1]
		s.read += len(text)
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" && !byItself(name, line) {
				events = append(events, map[string]string{"bridge": "[FDB]", "nft": "[NFT]"}[name]+line)
			}
		}
	}
	return events, nil
}

// byItself reports whether a line is of a mark, or of what the kernel does without being asked.
func byItself(stream, line string) bool {
	if strings.Contains(line, "mark") || strings.HasSuffix(line, "(nft)") { // the latter names who made a mark
		return true
	}
	switch stream {
	case "ip":
		if strings.HasPrefix(line, "[LINK]") && !strings.Contains(line, " qdisc ") {
			return true // a bridge tells of its port's state
		}
		// A neighbour without an address is of a forwarding database, which the bridge monitor tells of.
		return strings.HasPrefix(line, "[NEIGH]") && (!strings.Contains(line, "PERMANENT") ||
			strings.HasPrefix(line, "[NEIGH]dev ") || strings.HasPrefix(line, "[NEIGH]Deleted dev "))
	case "bridge":
		// A bridge's own address, such as a mark's, whose name is a number once the mark has gone again.
		if words := strings.Fields(line); slices.Contains(words, "master") && words[max(0, slices.Index(words, "dev"))+1] ==
			words[slices.Index(words, "master")+1] {
			return true
		}
		return !strings.Contains(line, "permanent") && !strings.Contains(line, "static") && !strings.Contains(line, "dst")
	default:
		return false
	}
}
