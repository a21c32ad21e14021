package lab

import (
	"context"
	"errors"
	"fmt"
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

// mark is a change that a monitor makes itself: the words by which it is found, and the command with a verb to fill in.
type mark struct{ words, command string }

const (
	// markTable is the routing table of marks.
	markTable = 4242
	// markMAC begins the link-layer addresses of marks.
	markMAC = "02:6d:61:72"
)

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
	n := markers.Add(1)
	// Changes of each kind that nobody else makes, and that are none of Raven's business, so that its agent does not
	// look at them either; the kernel tells of changes in their order.
	marks := map[string]mark{
		"ip": {fmt.Sprintf("192.0.2.%d ", n%256),
			fmt.Sprintf("ip route %%s blackhole 192.0.2.%d table %d", n%256, markTable)},
		"bridge": {fmt.Sprintf("%s:%02x:%02x", markMAC, n>>8&0xff, n&0xff),
			fmt.Sprintf("bridge fdb %%s %s:%02x:%02x dev eth0 self", markMAC, n>>8&0xff, n&0xff)},
		"nft": {fmt.Sprintf("table ip mark%d", n), fmt.Sprintf("nft %%s table ip mark%d", n)},
	}
	// Collecting has only begun once a mark was seen, so marks are made until then.
	err := Await(ctx, "the monitors on "+m.host.Name+" to tell of a mark", func(ctx context.Context) error {
		for name, s := range m.streams {
			if strings.Contains(s.said.String()[s.read:], marks[name].words) {
				continue
			}
			add, del := fmt.Sprintf(marks[name].command, "add"), fmt.Sprintf(marks[name].command, "del")
			if name == "nft" {
				del = fmt.Sprintf(marks[name].command, "delete")
			}
			if _, err := m.host.Run(ctx, "sh", "-c", add+" && "+del); err != nil {
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
	for _, sign := range []string{fmt.Sprintf("table %d", markTable), markMAC, "table ip mark"} {
		if strings.Contains(line, sign) {
			return true
		}
	}
	if strings.HasSuffix(line, "(nft)") {
		return true // it names who made a mark
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
		return !strings.Contains(line, "permanent") && !strings.Contains(line, "static") && !strings.Contains(line, "dst")
	default:
		return false
	}
}
