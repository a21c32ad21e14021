package doctor

import (
	"bytes"
	"context"
	"testing"

	"github.com/ravencni/raven/pkg/ctl/recorded"
)

func TestFindingsAreAsRecorded(t *testing.T) {
	found := []Finding{
		{Check: "agent", Level: OK, Node: "edge-1", Says: "agent is in order"},
		{Check: "routes", Level: Fail, Node: "edge-1", Says: "to be as planned the kernel lacks: set route 10.244.32.0/24 table 9027", Remedy: restart},
		{Check: "neighbours", Level: Fail, Node: "a-gateway-with-a-very-long-name.factories.example.com",
			Says:   "the gateway a-gateway-with-a-very-long-name.factories.example.com does not answer at 172.16.1.11 over the underlay",
			Remedy: "see that the node runs"},
		{Check: "cni", Level: Warn, Node: "edge-1", Says: "10.conflist does not chain raven-cni", Remedy: "let raven-agent insert it"},
	}
	var b bytes.Buffer
	if err := Write(&b, found, false); err != nil {
		t.Fatal(err)
	}
	recorded.Compare(t, "testdata/findings.txt", b.Bytes())
	recorded.JSON(t, "testdata/findings.json", found)
	if Worst(found) != Fail || Worst(found[3:]) != Warn || Worst(found[:1]) != OK {
		t.Error("the worst level is not the worst")
	}
}

func TestANodeThatKnowsNothingSaysSoAndNothingElse(t *testing.T) {
	s := Look(t.Context(), Options{Node: "edge-1", StateDir: t.TempDir(), CNIConfig: t.TempDir(), CNIBinaries: t.TempDir()})
	for _, f := range Run(context.Background(), s) {
		if f.Node != "edge-1" || f.Says == "" || (f.Remedy == "") != (f.Level == OK) {
			t.Errorf("a finding without node, words or remedy: %+v", f)
		}
		wanted := f.Check == "agent" || f.Check == "input"
		if wanted != (f.Level == Fail) && f.Check != "kernel" {
			t.Errorf("%s is %s: %s", f.Check, f.Level, f.Says)
		}
	}
}
