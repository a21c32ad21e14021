package graph

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/ravencni/raven/pkg/agent/local"
	"github.com/ravencni/raven/pkg/ctl/recorded"
	"github.com/ravencni/raven/pkg/topology"
)

func TestTheRegionsAreDrawnAsRecorded(t *testing.T) {
	r := &local.Report{
		Settings: local.Settings{Node: "hangzhou-1"}, Region: "gw-hangzhou", Role: topology.RoleGateway,
		Peers: []local.Peer{
			{Node: "cloud-1", Region: "gw-cloud", State: "up", RTT: new(0.0123), Relays: []string{"gw-qingdao"}},
			{Node: "shenzhen-1", Region: "gw-<shenzhen>", State: "connecting"},
		},
	}
	recorded.JSON(t, "testdata/regions.json", r.Peers)
	for file, draw := range map[string]func(io.Writer, *local.Report) error{"regions.dot": DOT, "regions.svg": SVG} {
		var b bytes.Buffer
		if err := draw(&b, r); err != nil {
			t.Fatal(err)
		}
		path := "testdata/" + file
		if os.Getenv("RAVEN_GOLDEN") == "write" {
			if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("not as recorded in %s:\n%s", path, b.Bytes())
		}
	}
	var svg bytes.Buffer
	if err := SVG(&svg, r); err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(&svg)
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the SVG is no XML: %v", err)
		}
	}
}
