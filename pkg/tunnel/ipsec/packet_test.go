package ipsec

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

func TestADatagramSurvivesTheWayIntoAPacketAndOutOfIt(t *testing.T) {
	for _, c := range []struct{ src, dst string }{
		{"198.51.100.7:4500", "192.0.0.8:4500"}, {"[2001:db8::7]:61000", "[100::1]:4500"},
	} {
		for _, size := range []int{0, 1, 2, 3, 1399} {
			src, dst := netip.MustParseAddrPort(c.src), netip.MustParseAddrPort(c.dst)
			payload := bytes.Repeat([]byte{0xa5, 0x5a, 0xff}, size)[:size]
			buffer := append(make([]byte, headroom), payload...)
			packet := buildUDP(buffer, src, dst)
			from, to, got, ok := parseUDP(packet)
			if !ok || from != src || to != dst || !bytes.Equal(got, payload) {
				t.Errorf("%s to %s, %d bytes: got %v to %v, %d bytes, %v", c.src, c.dst, size, from, to, len(got), ok)
			}
			checkSums(t, packet, src.Addr().Is4())
		}
	}
}

// checkSums has another implementation compute the checksums anew.
func checkSums(t *testing.T, packet []byte, four bool) {
	t.Helper()
	first := layers.LayerTypeIPv6
	if four {
		first = layers.LayerTypeIPv4
	}
	p := gopacket.NewPacket(packet, first, gopacket.Default)
	again := gopacket.NewSerializeBuffer()
	if ip, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ok {
		sum := ip.Checksum
		if err := ip.SerializeTo(again, gopacket.SerializeOptions{ComputeChecksums: true}); err != nil || ip.Checksum != sum {
			t.Errorf("the header's checksum is %#x, want %#x (%v)", sum, ip.Checksum, err)
		}
		return
	}
	udp := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	sum := udp.Checksum
	if err := udp.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
		t.Fatal(err)
	}
	err := gopacket.SerializeLayers(again, gopacket.SerializeOptions{ComputeChecksums: true}, udp, gopacket.Payload(udp.Payload))
	if err != nil || udp.Checksum != sum {
		t.Errorf("the UDP checksum is %#x, want %#x (%v)", sum, udp.Checksum, err)
	}
}

func TestWhatIsNoWholeDatagramIsLeftAlone(t *testing.T) {
	src, dst := netip.MustParseAddrPort("198.51.100.7:1"), netip.MustParseAddrPort("192.0.0.8:2")
	good := buildUDP(append(make([]byte, headroom), "payload"...), src, dst)
	for name, change := range map[string]func([]byte) []byte{
		"fragment":           func(p []byte) []byte { p[6] |= 0x20; return p },
		"not UDP":            func(p []byte) []byte { p[9] = 6; return p },
		"header too long":    func(p []byte) []byte { p[0] = 0x4f; return p },
		"cut off":            func(p []byte) []byte { return p[:len(p)-1] },
		"UDP length too big": func(p []byte) []byte { p[25]++; return p },
		"UDP length zero":    func(p []byte) []byte { p[25] = 0; return p },
		"version 5":          func(p []byte) []byte { p[0] = 0x55; return p },
		"nothing":            func([]byte) []byte { return nil },
	} {
		if _, _, _, ok := parseUDP(change(bytes.Clone(good))); ok {
			t.Errorf("%s: taken", name)
		}
	}
}
