package checks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/bpf"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/test/lab"
)

// pinned is the folder of the maps.
var pinned = path.Join(datapath.PinRoot, fmt.Sprintf("v%d", bpf.ABI))

// mapFields are the names that `bpftool map dump` must print, key/... and value/..., per map.
var mapFields = map[string][]string{
	"raven_config":     {"value/flags", "value/tcp_established_s", "value/udp_s", "value/udp_stream_s", "value/tunnel_port", "value/overlay_port"},
	"raven_fib4":       {"key/prefixlen", "key/addr", "value/nexthop", "value/scope"},
	"raven_fib6":       {"key/prefixlen", "key/addr", "value/nexthop", "value/scope"},
	"raven_nexthops":   {"value/group", "value/ifindex", "value/mtu", "value/kind", "value/flags", "value/dmac", "value/smac", "value/via"},
	"raven_pods":       {"key/bytes", "value/ifindex", "value/mac", "value/gw_mac"},
	"raven_flows":      {"key/saddr", "key/daddr", "key/sport", "key/dport", "key/protocol", "value/checked_ns", "value/verdict"},
	"raven_members":    {"key/bytes"},
	"raven_dropped":    {"value/count", "value/last"},
	"raven_handshakes": {"key/bytes", "value/window_ns", "value/count"},
	"raven_counters":   {"value/from_pod", "value/from_overlay", "value/from_tunnel", "value/from_underlay", "value/xdp_underlay"},
}

// mayBeEmpty are maps that hold entries only with --xdp.
var mayBeEmpty = []string{"raven_members", "raven_handshakes"}

// Dumps: every pinned map can be read with bpftool, field by field.
var Dumps = Check{
	Name: "bpftool-dump",
	Says: "bpftool map dump pinned prints every map of a gateway and a member by field names",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		// A flow, so that there are entries to print.
		flow, err := warm(ctx, l, "hangzhou-2/a", "qingdao-2/a", 4)
		if err != nil {
			return "", err
		}
		defer flow.Close()
		read := 0
		for _, node := range []string{"hangzhou-1", "hangzhou-2"} {
			for name, fields := range mapFields {
				if (node == "hangzhou-1") == (name == "raven_flows") {
					continue // no flow ends at the gateway, and one node is enough for the others
				}
				if err := dump(ctx, l.Host(node), name, fields); err != nil {
					return "", fmt.Errorf("%s on %s: %w", name, node, err)
				}
				read++
			}
		}
		return fmt.Sprintf("%d maps read", read), nil
	},
}

// warm opens a TCP connection to the Echo of to and exchanges enough for the flow to be accelerated.
func warm(ctx context.Context, l *lab.Lab, from, to string, family int) (net.Conn, error) {
	a, err := findEnd(l, from)
	if err != nil {
		return nil, err
	}
	b, err := findEnd(l, to)
	if err != nil {
		return nil, err
	}
	c, err := a.host.Dial(ctx, "tcp", netip.Addr{}, netip.AddrPortFrom(b.addr(family), lab.EchoPort))
	if err != nil {
		return nil, err
	}
	for range 20 {
		if _, _, err := lab.Exchange(ctx, c, "hello"); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

func dump(ctx context.Context, h *lab.Host, name string, fields []string) error {
	out, err := h.Run(ctx, "bpftool", "-j", "map", "dump", "pinned", path.Join(pinned, name))
	if err != nil {
		return err
	}
	var entries []struct {
		Formatted map[string]any
	}
	if err := json.Unmarshal([]byte(out), &entries); err != nil {
		return fmt.Errorf("read the dump: %w: %s", err, out)
	}
	if len(entries) == 0 {
		if slices.Contains(mayBeEmpty, name) {
			return withEntry(h, name, func() error { return dump(ctx, h, name, fields) })
		}
		return errors.New("the map is empty")
	}
	for _, field := range fields {
		part, member, _ := strings.Cut(field, "/")
		if !hasMember(entries[0].Formatted[part], entries[0].Formatted["values"], member) {
			return fmt.Errorf("the dump has no field %s: %s", field, out[:min(len(out), 500)])
		}
	}
	return nil
}

// hasMember looks for a field in a key or value, or in the values of a per-CPU map, one per CPU.
func hasMember(part, perCPU any, member string) bool {
	if fields, ok := part.(map[string]any); ok {
		_, has := fields[member]
		return has
	}
	cpus, ok := perCPU.([]any)
	if !ok || len(cpus) == 0 {
		return false
	}
	cpu, ok := cpus[0].(map[string]any)
	return ok && hasMember(cpu["value"], nil, member)
}

// withEntry puts an entry of a documentation address into a map while f runs.
func withEntry(h *lab.Host, name string, f func() error) error {
	key := bpf.Addr{Bytes: netip.MustParseAddr("::ffff:192.0.2.1").As16()}
	change := func(do func(*ebpf.Map) error) error {
		m, err := ebpf.LoadPinnedMap(h.Path(path.Join(pinned, name)), nil)
		if err != nil {
			return fmt.Errorf("open the pinned map: %w", err)
		}
		return errors.Join(do(m), m.Close())
	}
	err := change(func(m *ebpf.Map) error { return m.Put(key, make([]byte, m.ValueSize())) })
	if err != nil {
		return fmt.Errorf("add an entry: %w", err)
	}
	return errors.Join(f(), change(func(m *ebpf.Map) error { return m.Delete(key) }))
}

// Attachments: every program of ours is where it should be, as the kernel says.
var Attachments = Check{
	Name: "attachments",
	Says: "every attachment of an accelerated node is listed by the kernel",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		var evidence []string
		for _, node := range l.Nodes() {
			e, err := findEnd(l, node)
			if err != nil {
				return "", err
			}
			want := programsOf(e, l.TunnelDevice())
			for dev, program := range want {
				programs, err := attached(ctx, l.Host(node), dev)
				if err != nil {
					return "", err
				}
				if !slices.Contains(programs, program) {
					return "", fmt.Errorf("%s on %s runs %v at ingress, want %s", dev, node, programs, program)
				}
			}
			evidence = append(evidence, fmt.Sprintf("%s %d", node, len(want)))
		}
		return "attachments: " + strings.Join(evidence, ", "), nil
	},
}

// AttachmentsClsact needs agents with --force-clsact, as on kernels without tcx: there `bpftool net` lists the programs.
var AttachmentsClsact = Check{
	Name:  "attachments-clsact",
	Says:  "where the kernel has no tcx, bpftool net lists every attachment",
	Flags: []string{"--force-clsact"},
	Run:   attachedByClsact,
}

func attachedByClsact(ctx context.Context, l *lab.Lab) (string, error) {
	listed := 0
	for _, node := range l.Nodes() {
		e, err := findEnd(l, node)
		if err != nil {
			return "", err
		}
		for dev, program := range programsOf(e, l.TunnelDevice()) {
			programs, err := byClsact(ctx, l.Host(node), dev)
			if err != nil {
				return "", err
			}
			if !slices.Contains(programs, program) {
				return "", fmt.Errorf("%s of %s runs %v at its clsact ingress, want %s", dev, node, programs, program)
			}
			listed++
		}
	}
	return fmt.Sprintf("%d clsact filters on %d nodes", listed, len(l.Nodes())), nil
}

// byClsact lists the names of the programs that bpftool shows at a device's clsact ingress.
func byClsact(ctx context.Context, h *lab.Host, dev string) (names []string, err error) {
	out, err := h.Run(ctx, "bpftool", "-j", "net")
	if err != nil {
		return nil, err
	}
	var net []struct {
		TC []struct{ Devname, Kind, Name string }
	}
	if err := json.Unmarshal([]byte(out), &net); err != nil {
		return nil, fmt.Errorf("read bpftool's listing on %s: %w: %s", h.Name, err, out)
	}
	for _, at := range net[0].TC {
		if at.Devname == dev && at.Kind == "clsact/ingress" {
			names = append(names, at.Name)
		}
	}
	return names, nil
}

// programsOf maps the devices of a node to the programs that they run; tunnel is the gateways' tunnel device.
func programsOf(node end, tunnel string) map[string]string {
	programs := map[string]string{"raven0": "raven_from_overlay", "eth0": "raven_from_underlay"}
	if node.region.Gateway().Name == node.node.Name {
		programs[tunnel] = "raven_from_tunnel"
	}
	for _, p := range node.node.Pods {
		programs[lab.HostVeth(p)] = "raven_from_pod"
	}
	return programs
}

// errNoTCX: the kernel is older than 6.6.
var errNoTCX = errors.New("this kernel has no tcx")

// attached lists the names of the programs at a device's ingress: by tcx where the kernel has it, else by clsact.
func attached(ctx context.Context, h *lab.Host, dev string) ([]string, error) {
	names, err := byTCX(h, dev)
	if errors.Is(err, errNoTCX) {
		return byClsact(ctx, h, dev)
	}
	return names, err
}

func byTCX(h *lab.Host, dev string) (names []string, err error) {
	l, err := h.Link(dev)
	if err != nil {
		return nil, err
	}
	err = h.Do(func() error {
		result, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: ebpf.AttachTCXIngress})
		if errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported) {
			return errNoTCX
		}
		if err != nil {
			return err
		}
		for _, p := range result.Programs {
			program, err := ebpf.NewProgramFromID(p.ID)
			if err != nil {
				return err
			}
			info, err := program.Info()
			if err := errors.Join(err, program.Close()); err != nil {
				return err
			}
			names = append(names, info.Name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the programs at %s on %s: %w", dev, h.Name, err)
	}
	return names, nil
}
