package netns

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTwoNamespacesJoinedByAVethExchangePackets(t *testing.T) {
	Run(t, func(t *testing.T) {
		here, there := Current(t), New(t)
		Veth(t, End{In: here, Name: "a", Addresses: []string{"10.9.0.1/24"}},
			End{In: there, Name: "b", Addresses: []string{"10.9.0.2/24", "fd00:9::2/64"}})
		var server net.PacketConn
		there.Do(t, func() {
			if _, err := net.InterfaceByName("a"); err == nil {
				t.Error("the device of one end shows in the namespace of the other")
			}
			var err error
			if server, err = net.ListenPacket("udp", "10.9.0.2:7"); err != nil {
				t.Fatal(err)
			}
		})
		defer server.Close()
		client, err := net.Dial("udp", "10.9.0.2:7")
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if _, err := client.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 16)
		if err := server.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, from, err := server.ReadFrom(buf)
		if err != nil || string(buf[:n]) != "hello" || !strings.HasPrefix(from.String(), "10.9.0.1:") {
			t.Fatalf("got %q from %v, %v", buf[:n], from, err)
		}
	})
}

func TestSysctlsFollowTheNamespaceThatDoEnters(t *testing.T) {
	Run(t, func(t *testing.T) {
		const key = "/proc/sys/net/ipv4/ip_forward"
		there := New(t)
		there.Do(t, func() {
			if err := os.WriteFile(key, []byte("1"), 0); err != nil {
				t.Fatal(err)
			}
		})
		if b, err := os.ReadFile(key); err != nil || strings.TrimSpace(string(b)) != "0" {
			t.Fatalf("the test's own namespace has %q, %v", b, err)
		}
	})
}

func TestAMonitorSeesAnEventBeforeTheWriteReturns(t *testing.T) {
	Run(t, func(t *testing.T) {
		m := NewMonitor(t)
		if events := m.Drain(t); len(events) != 0 {
			t.Fatalf("a quiet namespace has events %v", events)
		}
		Veth(t, End{In: Current(t), Name: "a"}, End{In: Current(t), Name: "b"})
		events := m.Drain(t)
		if !slices.ContainsFunc(events, func(e string) bool { return strings.HasPrefix(e, "link set") }) {
			t.Fatalf("got %v, want the new links", events)
		}
	})
}
