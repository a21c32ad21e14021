package filter

import (
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/topology"
)

// BenchmarkForwarding measures what the table costs a 64-byte UDP datagram that the node forwards between two veths, in
// CPU time of the sending thread, which carries the packet to the far end. "conntrack" is a host that tracks connections,
// as every Kubernetes node does, without the table.
func BenchmarkForwarding(b *testing.B) {
	runtime.LockOSThread() // ends with the goroutine
	for _, p := range []struct {
		name       string
		from, to   string
		path, sink func(*world) *box
	}{
		{"others", "192.168.1.9:7000", "192.168.2.2:7001", func(w *world) *box { return w.lan }, func(w *world) *box { return w.pod2 }},
		{"pod to region", "10.1.1.2:7000", "10.2.0.5:7001", func(w *world) *box { return w.pod1 }, func(w *world) *box { return w.remote }},
		{"transit in VXLAN", "10.1.2.2:7000", "10.2.0.5:7001", func(w *world) *box { return w.lan }, func(w *world) *box { return w.remote }},
	} {
		for _, table := range []string{"nothing", "conntrack", "table", "table of 5000"} {
			b.Run(p.name+"/"+table, func(b *testing.B) {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				host, err := vnetns.Get()
				if err != nil {
					b.Fatal(err)
				}
				defer host.Close()
				if _, err := vnetns.New(); err != nil {
					b.Fatal(err)
				}
				defer func() {
					if err := vnetns.Set(host); err != nil {
						b.Fatal(err)
					}
				}()
				w := newWorld(b, topology.RoleGateway)
				w.pod2.ip("addr add 192.168.2.2/32 dev eth0")
				w.node.ip("route add 192.168.2.0/24 dev veth2")
				switch table {
				case "conntrack":
					w.node.run("nft", "add table inet t; add chain inet t c { type filter hook forward priority 0; }; add rule inet t c ct state established accept")
				case "table of 5000":
					big, _ := bigPlan(5000)
					w.plan.Prefixes = append(w.plan.Prefixes, big.Prefixes...)
					fallthrough
				case "table":
					w.apply(b)
				}
				if extra := os.Getenv("EXTRA"); extra != "" && table == "table" {
					w.node.run("nft", extra)
				}
				p.sink(w).listen(p.to)
				p.path(w).in(func() { send(b, p.from, p.to) })
			})
		}
	}
}

// send sends b.N datagrams and reports the thread's CPU time for each.
func send(b *testing.B, from, to string) {
	b.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, sockaddr(netip.MustParseAddrPort(from))); err != nil {
		b.Fatalf("bind to %s: %v", from, err)
	}
	if err := unix.Connect(fd, sockaddr(netip.MustParseAddrPort(to))); err != nil {
		b.Fatalf("connect to %s: %v", to, err)
	}
	payload := make([]byte, 64-28)
	cpu := threadCPU(b)
	b.ResetTimer()
	for range b.N {
		if _, err := unix.Write(fd, payload); err != nil {
			b.Fatalf("send: %v", err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64((threadCPU(b)-cpu).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

func threadCPU(b *testing.B) time.Duration {
	b.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}
