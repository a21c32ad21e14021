package ipsec

import (
	"slices"
	"strings"
	"testing"
)

// names are the interfaces as "name=peer", in one word.
func names(all []peerInterface) string {
	var out []string
	for _, i := range all {
		out = append(out, i.name+"="+i.peer)
	}
	return strings.Join(out, " ")
}

func TestAPeerKeepsItsInterfaceAndOthersTakeFreeNumbers(t *testing.T) {
	at := func(n uint32, peer string) peerInterface {
		return peerInterface{name: baseName(DefaultDevice) + string(rune('0'+n)), number: n, peer: peer}
	}
	for name, c := range map[string]struct {
		have            []peerInterface
		taken           map[string]bool
		peers           []string
		keep, add, gone string
	}{
		"the first ones":          {nil, nil, []string{"a", "b"}, "", "raven-ipsec0=a raven-ipsec1=b", ""},
		"all there":               {[]peerInterface{at(0, "b"), at(3, "a")}, nil, []string{"a", "b"}, "raven-ipsec0=b raven-ipsec3=a", "", ""},
		"one comes, one goes":     {[]peerInterface{at(0, "a"), at(1, "b")}, nil, []string{"b", "c"}, "raven-ipsec1=b", "raven-ipsec2=c", "raven-ipsec0=a"},
		"another's device":        {nil, map[string]bool{"raven-ipsec0": true}, []string{"a"}, "", "raven-ipsec1=a", ""},
		"two to one peer":         {[]peerInterface{at(0, "a"), at(1, "a")}, nil, []string{"a"}, "raven-ipsec0=a", "", "raven-ipsec1=a"},
		"one without a name":      {[]peerInterface{at(0, "")}, nil, []string{"a"}, "", "raven-ipsec1=a", "raven-ipsec0="},
		"a hole in the numbers":   {[]peerInterface{at(1, "b")}, nil, []string{"a", "b"}, "raven-ipsec1=b", "raven-ipsec0=a", ""},
		"no peer is wanted twice": {nil, nil, []string{"a", "a"}, "", "raven-ipsec0=a", ""},
	} {
		keep, add, gone := planInterfaces(DefaultDevice, c.have, c.taken, c.peers)
		if names(keep) != c.keep || names(add) != c.add || names(gone) != c.gone {
			t.Errorf("%s: keep %q, add %q, remove %q; want %q, %q, %q", name, names(keep), names(add), names(gone), c.keep, c.add, c.gone)
		}
	}
}

func TestAnInterfaceOfItsOwnMakesATunnelIndependentOfPrefixes(t *testing.T) {
	number := func(string) uint32 { return firstIfID + 7 }
	routed, narrow := terms{port: 4500, number: number}, terms{local: insideAddresses, port: natPort}
	few := DesiredPeer{Node: "west", Endpoint: endpoint("198.51.100.2:4500"), Dial: true, Prefixes: prefixes("10.2.0.0/16")}
	many := few
	many.Prefixes = prefixes("10.2.0.0/16", "10.4.0.0/16", "fd00:2::/64")
	want := &Desired{Node: "east", Port: 4500, PSK: "a secret"}
	text := func(t *testing.T, x terms, p DesiredPeer) string {
		b, err := connection(x, want, p).Encode()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if text(t, routed, few) != text(t, routed, many) {
		t.Error("charon is given the routed connection anew where a prefix has come")
	}
	if text(t, narrow, few) == text(t, narrow, many) {
		t.Error("a connection with selectors does not follow its prefixes")
	}
	child := connection(routed, want, many).Section("west").Section("children").Section(routed.childName(many))
	if id := child.Get("if_id_in"); id != "1920335879" || child.Get("if_id_out") != id || child.Get("reqid") != id {
		t.Errorf("the child's ids are %q, %q, %q", id, child.Get("if_id_out"), child.Get("reqid"))
	}
	if ts := child.List("remote_ts"); !slices.Equal(ts, []string{"0.0.0.0/0", "::/0"}) {
		t.Errorf("the remote selectors are %v", ts)
	}
}
