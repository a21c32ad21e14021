package gro

import (
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/test/netns"
)

func TestAVXLANDeviceHandsPacketsOnAsTheyComeAlsoAfterOthersHadItMergeThem(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		const name = "vx0"
		if err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: name}, VxlanId: 7, Port: 4789}); err != nil {
			t.Fatal(err)
		}
		expect := func(changed bool) {
			t.Helper()
			if got, err := Off(name); err != nil || got != changed {
				t.Errorf("GRO was on: %v, %v; want %v", got, err, changed)
			}
		}
		expect(true)
		expect(false)
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := ethtool(fd, name, &ethtoolValue{cmd: unix.ETHTOOL_SGRO, data: 1}); err != nil {
			t.Fatal(err)
		}
		expect(true)
		if _, err := Off("nosuch0"); err == nil {
			t.Error("no error for a device that does not exist")
		}
	})
}
