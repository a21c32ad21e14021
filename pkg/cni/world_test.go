package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel"
	"github.com/ravencni/raven/pkg/datapath/accel/pintree"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/test/netns"
)

// TestMain lets the test binary be the plugin, so that the real program runs, with the race detector where tests do.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == Type {
		Main("CNI plugin under test")
		return
	}
	os.Exit(m.Run())
}

// referencePlugins builds the reference plugins once and returns their folder.
var referencePlugins = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("../../test/cniplugins/build.sh").Output()
	return strings.TrimSpace(string(out)), err
})

// Kinds of pod networks, as the plugin before ours makes them.
var primaries = map[string]string{
	"bridge": `{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": %s}`,
	"ptp":    `{"type": "ptp", "ipam": %s}`,
}

// world is a node in namespaces: the kernel, the CNI runtime's library, and an agent that ran and is gone, if any.
type world struct {
	t       *testing.T
	bin     string // our plugin
	runtime *libcni.CNIConfig
	plan    *topology.Plan
	host    datapath.Host
	log     *bytes.Buffer
	leases  string
	// ipv6 gives pods an address of that family, too; the plugins then wait a second or two for duplicate detection.
	ipv6 bool
}

// onNode runs f on a node whose pods live in 10.244.1.0/24 and fd00:1::/64.
func onNode(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	reference, err := referencePlugins()
	if err != nil {
		t.Fatalf("build the reference plugins: %v", err)
	}
	self, err := os.Executable()
	must(t, err)
	bin := t.TempDir()
	must(t, os.Symlink(self, filepath.Join(bin, Type)))
	cache, leases := t.TempDir(), t.TempDir()
	netns.Run(t, func(t *testing.T) {
		w := &world{
			t: t, bin: bin, leases: leases, log: new(bytes.Buffer),
			// Without an Exec of ours the library makes one at its first use, whichever thread that is.
			runtime: libcni.NewCNIConfigWithCacheDir([]string{bin, reference}, cache, &invoke.DefaultExec{RawExec: &invoke.RawExec{}}),
		}
		w.setUp()
		f(t, w)
	})
}

func (w *world) setUp() {
	device := func(l netlink.Link, name string) datapath.Link {
		l.Attrs().Name = name
		must(w.t, netlink.LinkAdd(l))
		made, err := netlink.LinkByName(name)
		must(w.t, err)
		must(w.t, netlink.LinkSetUp(made))
		return datapath.Link{Name: name, Index: made.Attrs().Index, MTU: 1500}
	}
	underlay := device(&netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "wire"}, "eth.0")
	device(&netlink.Vxlan{LinkAttrs: netlink.NewLinkAttrs(), VxlanId: datapath.OverlayVNI, Port: datapath.OverlayPort}, datapath.OverlayDevice)
	for _, name := range []string{"nf_conntrack_tcp_be_liberal", "nf_conntrack_tcp_ignore_invalid_rst"} {
		must(w.t, os.WriteFile("/proc/sys/net/netfilter/"+name, []byte("1"), 0o644)) // as the agent's sysctl part does
	}
	w.host = datapath.Host{Underlay: underlay, Underlays: []datapath.Link{underlay}}
	w.plan = &topology.Plan{
		Node: "a2", Region: "a", Role: topology.RoleMember, NodeIP4: netip.MustParseAddr("10.0.0.2"),
		LocalPrefixes: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")},
		Overlay:       &topology.Overlay{MTU: 1450, Members: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
		NextHops: []topology.NextHop{{
			ID: "node/a1", Kind: topology.KindOverlay, Node: "a1", MTU: 1450,
			Underlay: netip.MustParseAddr("10.0.0.1"), MAC: topology.VTEPMAC(netip.MustParseAddr("10.0.0.1")),
		}},
		Prefixes: []topology.Prefix{{Prefix: netip.MustParsePrefix("10.245.0.0/16"), Scope: topology.ScopeRemote, NextHop: "node/a1"}},
	}
}

// agent runs one pass of the agent's accelerator and returns what it wrote. Nothing of the agent runs afterwards: what
// is pinned is all that is left of it.
func (w *world) agent() accel.Stats {
	w.t.Helper()
	a, err := accel.New(accel.Options{Logger: slog.New(slog.NewTextHandler(w.log, nil))})
	must(w.t, err)
	_, err = a.Apply(context.Background(), w.plan, w.host)
	must(w.t, err)
	if mode, reason := a.Mode(); mode != v1beta1.DatapathAccelerated {
		w.t.Fatalf("the agent's mode is %s: %s", mode, reason)
	}
	return a.Stats()
}

// chain is a network of these plugins, each a JSON object; and primary the one that makes interfaces.
func (w *world) chain(version, primary string, more ...string) *libcni.NetworkConfigList {
	w.t.Helper()
	ranges := `[{"subnet": "10.244.1.0/24"}]`
	if w.ipv6 {
		ranges += `, [{"subnet": "fd00:1::/64"}]`
	}
	ipam := fmt.Sprintf(`{"type": "host-local", "dataDir": %q, "ranges": [%s]}`, w.leases, ranges)
	list := []string{fmt.Sprintf(primaries[primary], ipam)}
	text := fmt.Sprintf(`{"cniVersion": %q, "name": "pods", "plugins": [%s]}`, version, strings.Join(append(list, more...), ","))
	c, err := libcni.NetworkConfFromBytes([]byte(text))
	must(w.t, err)
	return c
}

const ours = `{"type": "raven-cni", "logLevel": "debug"}`

// runtimeConf makes a pod's network namespace, which ends with the test.
func (w *world) runtimeConf(id string) *libcni.RuntimeConf {
	w.t.Helper()
	ns := netns.New(w.t)
	return &libcni.RuntimeConf{ContainerID: id, IfName: "eth0", NetNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.FD())}
}

func (w *world) add(c *libcni.NetworkConfigList, rt *libcni.RuntimeConf) *types100.Result {
	w.t.Helper()
	r, err := w.runtime.AddNetworkList(context.Background(), c, rt)
	if err != nil {
		w.t.Fatalf("ADD %s: %v", rt.ContainerID, err)
	}
	w.settle(rt)
	return current(w.t, r)
}

// settle waits for what an ADD left to another run: that has the lock until it is done.
func (w *world) settle(rt *libcni.RuntimeConf) {
	w.t.Helper()
	f, err := os.Open(rt.NetNS)
	must(w.t, err)
	defer f.Close()
	must(w.t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
}

func (w *world) del(c *libcni.NetworkConfigList, rt *libcni.RuntimeConf) {
	w.t.Helper()
	if err := w.runtime.DelNetworkList(context.Background(), c, rt); err != nil {
		w.t.Fatalf("DEL %s: %v", rt.ContainerID, err)
	}
}

func current(t *testing.T, r types.Result) *types100.Result {
	t.Helper()
	c, err := types100.NewResultFromResult(r)
	must(t, err)
	return c
}

// pods reads raven_pods: the device of each address.
func (w *world) pods() map[netip.Addr]pintree.PodEntry {
	w.t.Helper()
	m, err := ebpf.LoadPinnedMap(filepath.Join(pintree.TreePath(pintree.Root), pintree.Pods), nil)
	must(w.t, err)
	defer m.Close()
	o := &objects{pods: m}
	all, err := o.entries()
	must(w.t, err)
	return all
}

// pins lists the pinned links.
func (w *world) pins() []string {
	w.t.Helper()
	list, err := filepath.Glob(filepath.Join(pintree.TreePath(pintree.Root), "links", pintree.FromPod+"-*"))
	must(w.t, err)
	return list
}

func (w *world) expectNothingLeft() {
	w.t.Helper()
	if pins, pods := w.pins(), w.pods(); len(pins)+len(pods) > 0 {
		w.t.Errorf("left behind: pins %v, entries %v", pins, slices.Collect(maps.Keys(pods)))
	}
}

// said is the plugin's log.
func (w *world) said() string {
	w.t.Helper()
	b, err := os.ReadFile(DefaultLog)
	if err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	return string(b)
}

// expectAccelerated checks that the pod's addresses are known with the pod's own device, that the program runs there,
// and that the agent finds nothing to correct.
func (w *world) expectAccelerated(r *types100.Result) {
	w.t.Helper()
	pods := w.pods()
	for _, ip := range r.IPs {
		addr, _ := netip.AddrFromSlice(ip.Address.IP)
		e, ok := pods[addr.Unmap()]
		if !ok {
			w.t.Fatalf("%s is unknown; the plugin said:\n%s", addr, w.said())
		}
		if !slices.Contains(w.pins(), filepath.Join(pintree.TreePath(pintree.Root), "links", fmt.Sprintf("%s-%d", pintree.FromPod, e.Ifindex))) {
			w.t.Errorf("nothing is attached to device %d; the plugin said:\n%s", e.Ifindex, w.said())
		}
	}
	if s := w.agent(); s.Attachments != 0 || s.MapUpdates != 0 || s.MapDeletions != 0 {
		w.t.Errorf("the agent had to correct what the plugin did: %+v\n%s", s, w.log)
	}
}

// repeat calls our plugin alone once more, in this process.
func (w *world) repeat(rt *libcni.RuntimeConf, r types.Result) {
	w.t.Helper()
	p := Plugin{Out: io.Discard}
	must(w.t, p.Add(argsOf(rt, fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "pods", "type": "raven-cni", "prevResult": %s}`, plain(w.t, r)))))
}

func argsOf(rt *libcni.RuntimeConf, stdin string) *skel.CmdArgs {
	return &skel.CmdArgs{ContainerID: rt.ContainerID, Netns: rt.NetNS, IfName: rt.IfName, StdinData: []byte(stdin)}
}

// leaveBehind makes a pod named gone and takes its veth away without a DEL. It returns the device's number.
func (w *world) leaveBehind(c *libcni.NetworkConfigList) int {
	w.t.Helper()
	r := w.add(c, w.runtimeConf("gone"))
	addr, _ := netip.AddrFromSlice(r.IPs[0].Address.IP)
	l, err := netlink.LinkByIndex(int(w.pods()[addr.Unmap()].Ifindex))
	must(w.t, err)
	must(w.t, netlink.LinkDel(l))
	return l.Attrs().Index
}

// program passes everything on, and is not ours.
func program(t *testing.T) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "theirs", Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, -1), asm.Return(),
	}})
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// plain is a result in words that do not depend on random names.
func plain(t *testing.T, r types.Result) string {
	t.Helper()
	b, err := json.Marshal(r)
	must(t, err)
	return string(b)
}
