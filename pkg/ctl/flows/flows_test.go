package flows

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/ctl/recorded"
	"github.com/ravencni/raven/pkg/datapath/accel"
)

func some() []accel.Flow {
	end := netip.MustParseAddrPort
	return []accel.Flow{
		{Protocol: "TCP", Source: end("10.244.1.2:40000"), Destination: end("10.96.0.1:443"), Reason: "nat", Age: time.Second},
		{Protocol: "TCP", Source: end("10.244.1.2:40001"), Destination: end("10.244.17.19:80"), Accelerated: true, Age: time.Minute},
		{Protocol: "UDP", Source: end("[fd00:1234:5678:9abc:def0:1234:5678:9abc]:65535"), Accelerated: true, Age: time.Second,
			Destination: end("[fd00:8765:4321:cba9:0fed:8765:4321:cba9]:65535")},
	}
}

func TestFlowsAreChosenAndSorted(t *testing.T) {
	if got := choose(some(), 0, nil); len(got) != 3 || got[0].Protocol != "UDP" || got[2].Reason != "nat" || got[2].Meaning == "" {
		t.Errorf("%+v", got)
	}
	if got := choose(some(), 5*time.Second, nil); len(got) != 2 {
		t.Errorf("within 5 s: %+v", got)
	}
	if got := choose(some(), 0, []netip.Addr{netip.MustParseAddr("10.96.0.1")}); len(got) != 1 || got[0].Reason != "nat" {
		t.Errorf("of one address: %+v", got)
	}
}

func TestTheTableIsAsRecordedAndFits(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, choose(some(), 0, nil), 0); err != nil {
		t.Fatal(err)
	}
	if err := Write(&b, choose(some(), 0, nil), 1); err != nil {
		t.Fatal(err)
	}
	recorded.Compare(t, "testdata/flows.txt", b.Bytes())
	recorded.JSON(t, "testdata/flows.json", choose(some(), 0, nil))
}
