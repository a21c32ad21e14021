package ipsec

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/tunnel/ipsec/vici"
)

// TestAnotherTunnelIsAskedForOnlyWhereNoneIsUnderWay has a socket that hangs up in charon's place, so that each attempt to
// dial fails and shows.
func TestAnotherTunnelIsAskedForOnlyWhereNoneIsUnderWay(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "vici")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	defer func() {
		listener.Close()
		<-done
	}()
	p := DesiredPeer{Node: "west", Endpoint: endpoint("198.51.100.2:4500"), Dial: true, Prefixes: prefixes("10.2.0.0/16")}
	with := func(state string, selectors ...string) []association {
		return []association{{state: "ESTABLISHED", children: []child{{number: 1, state: state, remote: selectors}}}}
	}
	for name, c := range map[string]struct {
		runs  []association
		dials bool
	}{
		"nothing runs":                    {nil, true},
		"a negotiation is under way":      {[]association{{state: "CONNECTING"}}, false},
		"the tunnel is there":             {with("INSTALLED", "10.2.0.0/16"), false},
		"its prefixes are others":         {with("INSTALLED", "10.9.0.0/16"), true},
		"it is being renewed":             {with("REKEYING", "10.2.0.0/16"), false},
		"it comes in a moment":            {with("INSTALLING", "10.2.0.0/16"), false},
		"what was renewed alone is there": {with("REKEYED", "10.2.0.0/16"), true},
	} {
		v, err := vici.Dial(t.Context(), socket)
		if err != nil {
			t.Fatal(err)
		}
		k := newConnections(terms{}, nil, func(string) error { return nil }, newCauses())
		k.loaded[p.Node] = loaded{}
		err = k.keepPeer(t.Context(), v, p, c.runs, time.Now())
		if (err != nil) != c.dials {
			t.Errorf("%s: the error of dialling is %v, want one: %v", name, err, c.dials)
		}
		v.Close()
	}
}
