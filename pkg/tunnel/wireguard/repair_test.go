package wireguard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/pkg/tunnel/detached"
)

const waitLong = 10 * time.Second

// process returns the recorded process of the host's device.
func (h *host) process() process {
	h.t.Helper()
	p, err := recordedProcess(h.opts.StateDir)
	if err != nil || p == nil {
		h.t.Fatalf("%s: no recorded process: %v", h.name, err)
	}
	return *p
}

func (h *host) awaitEnd(p process) {
	h.t.Helper()
	if err := detached.Await(context.Background(), waitLong, func() bool { return !p.alive() }); err != nil {
		h.t.Fatalf("%s: process %d does not end", h.name, p.PID)
	}
}

// dump is all that can be configured on the device and its link, in one order.
func (h *host) dump() string {
	dev := h.device()
	lines := []string{fmt.Sprint("key ", dev.PublicKey, " port ", dev.ListenPort)}
	for _, p := range dev.Peers {
		var prefixes []string
		for _, n := range p.AllowedIPs {
			prefixes = append(prefixes, n.String())
		}
		slices.Sort(prefixes)
		lines = append(lines, fmt.Sprint("peer ", p.PublicKey, p.Endpoint, p.PersistentKeepaliveInterval, prefixes))
	}
	for _, words := range [][]string{{"addr"}, {"link"}} {
		for l := range strings.Lines(h.run("ip", append([]string{"-o"}, append(words, "show", "dev", DefaultDevice)...)...)) {
			_, l, _ = strings.Cut(l, ": ") // without the index
			if !strings.Contains(l, "inet6 fe80") {
				lines = append(lines, strings.TrimSpace(l))
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestARestartedAgentWritesNothingAndNoHandshakeIsMade(t *testing.T) {
	p := newPair(t)
	p.connect()
	before, dump, key := p.a.device(), p.a.dump(), p.a.key()
	p.a.restart()
	if p.a.key() != key {
		t.Errorf("the key changed from %s to %s", key, p.a.key())
	}
	for range 10 {
		p.a.apply(p.planA, 0)
	}
	if p.a.dump() != dump {
		t.Errorf("the device changed from\n%sto\n%s", dump, p.a.dump())
	}
	p.a.awaitEcho("10.1.0.1", "10.2.0.1:7", waitLong)
	after := p.a.device()
	if !after.Peers[0].LastHandshakeTime.Equal(before.Peers[0].LastHandshakeTime) {
		t.Errorf("a handshake at %v, the last one was at %v", after.Peers[0].LastHandshakeTime, before.Peers[0].LastHandshakeTime)
	}
	if s := p.a.status()["b"]; s.State != tunnel.StateUp {
		t.Errorf("status of b after the restart: %+v", s)
	}
}

func TestTheDeviceOutlivesAnAgentThatIsKilled(t *testing.T) {
	needsUserspace(t)
	h := newHost(t, "a").serve(Options{})
	p := plan("a", "192.0.2.1", peerAt("b", newPublicKey(t), "192.0.2.2:4500", 25, "10.2.0.0/24"))
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	// A file that the agent has inherited without close-on-exec must not reach the device's process.
	leak, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	var agent *exec.Cmd
	h.do(func() error {
		agent = exec.Command("/proc/self/exe", "agent", h.opts.StateDir, string(text))
		agent.Env = append(os.Environ(), "SECRET=hunter2")
		agent.ExtraFiles = []*os.File{leak}
		out, err := agent.StdoutPipe()
		if err != nil {
			return err
		}
		if err := agent.Start(); err != nil {
			return err
		}
		_, err = out.Read(make([]byte, 1)) // "applied"
		return err
	})
	proc := h.process()
	if sid, err := unix.Getsid(proc.PID); err != nil || sid != proc.PID {
		t.Errorf("the process is in session %d, %v", sid, err)
	}
	folder := filepath.Join("/proc", strconv.Itoa(proc.PID))
	if cwd, err := os.Readlink(filepath.Join(folder, "cwd")); err != nil || cwd != "/" {
		t.Errorf("the process works in %s, %v", cwd, err)
	}
	if env, err := os.ReadFile(filepath.Join(folder, "environ")); err != nil || strings.Contains(string(env), "hunter2") {
		t.Errorf("the process has the environment %q, %v", env, err)
	}
	fds, err := os.ReadDir(filepath.Join(folder, "fd"))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join(folder, "fd", fd.Name())); err == nil && strings.HasPrefix(to, "/tmp/") && filepath.Base(to) != logFile {
			t.Errorf("the process holds the file %s", to)
		}
	}

	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := agent.Wait(); !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if !proc.alive() {
		t.Fatal("the process died with the agent")
	}
	h.apply(p, 0)
	h.do(func() error { return h.Cleanup(context.Background()) })
	if proc.alive() {
		t.Error("Cleanup leaves the process of an earlier agent")
	}
}

func TestAKilledDeviceProcessComesBackInOneApply(t *testing.T) {
	needsUserspace(t)
	p := newPair(t)
	p.connect()
	dump := p.a.dump()
	old := p.a.process()
	if err := syscall.Kill(old.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.a.awaitEnd(old)
	select {
	case <-p.a.child.ended:
	case <-time.After(waitLong):
		t.Error("the driver does not reap its child")
	}
	if s := p.a.status()["b"]; s.State != tunnel.StateDown || !strings.Contains(s.Message, "gone") {
		t.Errorf("status of b without a device: %+v", s)
	}
	p.a.apply(p.planA, -1)
	// b still holds the old session; a shakes hands by itself, so that b's packets find it.
	p.a.awaitHandshake("b")
	p.a.apply(p.planA, 0)
	p.a.route("10.2.0.0/24", DefaultDevice, "")
	p.a.awaitEcho("10.1.0.1", "10.2.0.1:7", waitLong)
	if got := p.a.dump(); got != dump {
		t.Errorf("the device changed from\n%sto\n%s", dump, got)
	}
}

func (h *host) awaitHandshake(node string) {
	h.t.Helper()
	if err := detached.Await(context.Background(), waitLong, func() bool { return h.status()[node].State == tunnel.StateUp }); err != nil {
		h.t.Fatalf("%s: no handshake with %s: %+v", h.name, node, h.status()[node])
	}
}

func TestADeviceDeletedByHandComesBackInOneApplyAndItsProcessEnds(t *testing.T) {
	p := newPair(t)
	p.connect()
	var old process
	if !kernelToo {
		old = p.a.process()
	}
	p.a.run("ip", "link", "del", DefaultDevice)
	p.a.apply(p.planA, -1)
	if !kernelToo {
		p.a.awaitEnd(old)
		if now := p.a.process(); now.PID == old.PID {
			t.Errorf("the record still names process %d", old.PID)
		}
	}
	p.a.route("10.2.0.0/24", DefaultDevice, "")
	p.a.awaitEcho("10.1.0.1", "10.2.0.1:7", waitLong)
}

func TestEachThingChangedByHandIsRepairedWithOneWriteAndNoHandshake(t *testing.T) {
	p := newPair(t)
	p.planA.NodeIP6 = netip.MustParseAddr("2001:db8::1")
	p.connect()
	key := p.b.key()
	before, want := p.a.device().Peers[0].LastHandshakeTime, p.a.dump()
	for _, damage := range []string{
		"wg set raven-wg0 peer " + key + " persistent-keepalive 9",
		"wg set raven-wg0 peer " + key + " allowed-ips 10.2.0.0/24",
		"wg set raven-wg0 peer " + key + " allowed-ips 10.2.0.0/24,fd00:2::/64,10.9.0.0/16",
		"wg set raven-wg0 peer " + newPublicKey(t) + " allowed-ips 10.9.0.0/16",
		"wg set raven-wg0 peer " + newPublicKey(t) + " allowed-ips 10.2.0.0/24",
		"wg set raven-wg0 listen-port 4999",
		"ip link set raven-wg0 mtu 1300",
		"ip link set raven-wg0 txqueuelen 10",
		"ip link set raven-wg0 down",
		"ip addr del 192.0.2.1/32 dev raven-wg0",
		"ip addr del 2001:db8::1/128 dev raven-wg0",
		"ip addr add 192.0.2.9/24 dev raven-wg0",
	} {
		if kernelToo && (strings.Contains(damage, "txqueuelen") || strings.HasSuffix(damage, "down")) {
			continue // the kernel's device has no queue of ours, and forgets its sessions when it is set down
		}
		words := strings.Fields(damage)
		p.a.run(words[0], words[1:]...)
		r := p.a.apply(p.planA, -1)
		// A prefix taken away by another peer is two peers' affair; setting a device down takes its IPv6 addresses.
		if n := 1; r.Changes != n && !strings.HasSuffix(damage, "allowed-ips 10.2.0.0/24") && !strings.HasSuffix(damage, "down") {
			t.Errorf("after %q Apply made %d writes, want %d", damage, r.Changes, n)
		}
		p.a.apply(p.planA, 0)
		if got := p.a.dump(); got != want {
			t.Errorf("after %q the device is\n%swant\n%s", damage, got, want)
		}
	}
	p.a.route("10.2.0.0/24", DefaultDevice, "")
	p.a.awaitEcho("10.1.0.1", "10.2.0.1:7", waitLong)
	if after := p.a.device().Peers[0].LastHandshakeTime; !after.Equal(before) {
		t.Errorf("a handshake at %v, the last one was at %v", after, before)
	}
}

func TestADeletedSocketComesBackAndADeadOneIsNoHindrance(t *testing.T) {
	needsUserspace(t)
	p := newPair(t)
	p.connect()
	before, old := p.a.device().Peers[0].LastHandshakeTime, p.a.process()
	p.a.do(func() error { return os.Remove(socketPath(DefaultDevice)) })
	p.a.apply(p.planA, 0)
	if after := p.a.device().Peers[0].LastHandshakeTime; !after.Equal(before) || p.a.process() != old {
		t.Errorf("the deleted socket cost a handshake at %v", after)
	}

	p.a.apply(&topology.Plan{}, 1)
	p.a.do(func() error { // as a process leaves it that was killed
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketPath(DefaultDevice), Net: "unix"})
		if err != nil {
			return err
		}
		l.SetUnlinkOnClose(false)
		return l.Close()
	})
	p.a.apply(p.planA, -1)
	p.a.awaitHandshake("b")
}

func TestAnApplyThatFailsReportsTheDeviceThatStands(t *testing.T) {
	p := newPair(t)
	want := p.a.apply(p.planA, -1).Device
	if err := os.WriteFile(filepath.Join(p.a.opts.StateDir, keyFile), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.a.do(func() error {
		result, err := p.a.Apply(t.Context(), p.planA)
		if err == nil || result.Device != want {
			return fmt.Errorf("Apply with a damaged key reports the device %+v, want %+v, and the error %w", result.Device, want, err)
		}
		return nil
	})
}

func TestALostRoleTakesTheDeviceAndTheProcessAndKeepsTheKey(t *testing.T) {
	p := newPair(t)
	p.connect()
	var proc process
	if !kernelToo {
		proc = p.a.process()
	}
	key := p.a.key()
	p.a.apply(&topology.Plan{}, 1)
	p.a.apply(&topology.Plan{}, 0)
	if links := p.a.run("ip", "-o", "link"); strings.Contains(links, DefaultDevice) || proc.alive() {
		t.Errorf("the process lives: %v; links:\n%s", proc.alive(), links)
	}
	ipsec := *p.planA
	ipsec.Tunnel = &topology.Tunnel{Driver: "ipsec"}
	p.a.apply(&ipsec, 0)
	p.a.apply(p.planA, -1)
	if p.a.key() != key {
		t.Errorf("the key changed from %s to %s", key, p.a.key())
	}
	p.a.do(func() error { return errors.Join(p.a.Cleanup(context.Background()), p.a.Cleanup(context.Background())) })
	left, err := os.ReadDir(p.a.opts.StateDir)
	if err != nil || len(left) != 1 || left[0].Name() != keyFile {
		t.Errorf("Cleanup leaves %v, %v", left, err)
	}
	p.a.do(func() error {
		if _, err := os.Stat(socketDir); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("Cleanup leaves %s: %v", socketDir, err)
		}
		return nil
	})
	if p.a.key() != key {
		t.Errorf("the key changed from %s to %s", key, p.a.key())
	}
}

func TestARecordOfAnotherProcessEndsNobody(t *testing.T) {
	bystander := exec.Command("sleep", "600")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bystander.Process.Kill(); err != nil {
			t.Error(err)
		}
		var exit *exec.ExitError
		if err := bystander.Wait(); !errors.As(err, &exit) {
			t.Error(err)
		}
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var id process
	if err := detached.Await(t.Context(), waitLong, func() bool { // just after its start it may still show our executable
		id, err = identify(bystander.Process.Pid)
		return err == nil && id.Executable != self
	}); err != nil {
		t.Fatalf("the bystander is %+v", id)
	}
	for name, change := range map[string]func(*process){
		"start time": func(p *process) { p.StartTicks++ },
		"executable": func(p *process) { p.Executable = "/usr/bin/other" },
		"boot":       func(p *process) { p.BootID = "another" },
	} {
		other, dir := id, t.TempDir()
		change(&other)
		if err := other.record(dir); err != nil {
			t.Fatal(err)
		}
		if found, err := recordedProcess(dir); err != nil || found != nil {
			t.Errorf("another %s: found %+v, %v", name, found, err)
		}
		if err := errors.Join(other.end(t.Context()), other.signal(syscall.SIGKILL)); err != nil || !id.alive() {
			t.Fatalf("another %s: the bystander was ended, %v", name, err)
		}
	}
	if err := id.record(t.TempDir()); err != nil || !id.alive() {
		t.Errorf("the bystander is not alive: %v", err)
	}
}

func TestTimeToApplyGrowsLinearlyWithPeers(t *testing.T) {
	h := newHost(t, "a").serve(Options{})
	peers := func(n int) *topology.Plan {
		var all []topology.Peer
		for i := range n {
			all = append(all, peerAt(fmt.Sprint("n", i), newPublicKey(t), fmt.Sprintf("192.0.2.%d:%d", 2+i%250, 5000+i), i%2*25,
				fmt.Sprintf("10.%d.%d.0/24", i/250, i%250), fmt.Sprintf("fd00:%x::/64", i)))
		}
		return plan("a", "192.0.2.1", all...)
	}
	h.apply(plan("a", "192.0.2.1"), -1)
	took := map[int]time.Duration{}
	for _, n := range []int{25, 100} {
		p := peers(n)
		began := h.processorTime()
		h.apply(p, n)
		h.apply(p, 0)
		took[n] = h.processorTime() - began
		h.apply(plan("a", "192.0.2.1"), n)
	}
	t.Logf("two Applies take %v of a processor with 25 peers and %v with 100", took[25], took[100])
	if took[100] > 10*took[25] { // quadratic growth would be 16
		t.Errorf("100 peers take %v, 25 peers %v: more than linear", took[100], took[25])
	}
}

// processorTime is what the host's thread has used so far; the clock on the wall says more about the machine's load.
func (h *host) processorTime() (used time.Duration) {
	h.t.Helper()
	h.do(func() error {
		var u unix.Rusage
		err := unix.Getrusage(unix.RUSAGE_THREAD, &u)
		used = time.Duration(u.Utime.Nano() + u.Stime.Nano())
		return err
	})
	return used
}
