package overlay

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/test/netns"
)

func TestTheDeviceHandsPacketsOnAsTheyComeAlsoAfterOthersHadItMergeThem(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		apply(t, memberPlan())
		expect := func(changed bool) {
			t.Helper()
			if got, err := withoutGRO(datapath.OverlayDevice); err != nil || got != changed {
				t.Errorf("GRO was on: %v, %v; want %v", got, err, changed)
			}
		}
		expect(false)
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := ethtool(fd, datapath.OverlayDevice, &ethtoolValue{cmd: unix.ETHTOOL_SGRO, data: 1}); err != nil {
			t.Fatal(err)
		}
		if n := apply(t, memberPlan()); n != 1 {
			t.Errorf("%d writes, want one", n)
		}
		expect(false)
		if _, err := withoutGRO("nosuch0"); err == nil {
			t.Error("no error for a device that does not exist")
		}
	})
}
