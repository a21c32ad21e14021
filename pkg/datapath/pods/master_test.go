package pods

import (
	"strings"
	"testing"

	"github.com/ravencni/raven/pkg/datapath/accel/device"
)

type nothingForeign struct{}

func (nothingForeign) Foreign(int) (string, error) { return "", nil }

// The kernels at hand have no Open vSwitch, bond or VRF, so the devices are made up.
func TestAMasterOtherThanALinuxBridgeMakesAPodIneligible(t *testing.T) {
	for kind, want := range map[string]string{
		"openvswitch": "its master ovs-system is a openvswitch, not a Linux bridge",
		"vrf":         "its master ovs-system is a vrf, not a Linux bridge",
		"":            "its master ovs-system is a device, not a Linux bridge",
		"bridge":      "",
	} {
		d := discovery{
			in:      nothingForeign{},
			devices: map[int]device.Device{7: {Name: "ovs-system", Index: 7, Kind: kind}},
		}
		host := device.Device{Name: "veth0", Index: 5, Kind: "veth", Up: true, Master: 7}
		got, err := d.judge(host, device.Device{Up: true}, &Pod{})
		if err != nil || !strings.HasPrefix(got, want) || (want == "") != (got == "") {
			t.Errorf("master of kind %q: reason %q, error %v; want %q", kind, got, err, want)
		}
	}
}
