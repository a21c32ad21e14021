package accel

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// shared is one Go value for each struct of bpf/include/maps.h that keys or values are made of.
var shared = map[string]any{
	"raven_addr": address{}, "raven_node_config": nodeConfig{}, "raven_fib4_key": fib4Key{}, "raven_fib6_key": fib6Key{},
	"raven_fib_entry": fibEntry{}, "raven_nexthop": nexthop{}, "raven_pod": podEntry{}, "raven_flow_key": flowKey{},
	"raven_flow": flow{}, "raven_handshake_window": handshakes{}, "raven_program_counters": programCounts{},
	"raven_dropped_ring": droppedRing{},
}

func TestEverySharedStructHasTheSameLayoutInGoAndInEveryObject(t *testing.T) {
	seen := make(map[string]bool)
	for name, load := range specOf {
		spec, err := load()
		must(t, err)
		for _, m := range spec.Maps {
			for _, typ := range []btf.Type{m.Key, m.Value} {
				s, ok := typ.(*btf.Struct)
				if !ok || strings.HasPrefix(m.Name, ".") {
					continue
				}
				seen[s.Name] = true
				value, ok := shared[s.Name]
				if !ok {
					t.Errorf("%s: the map %s holds struct %s, which has no Go counterpart in this test", name, m.Name, s.Name)
					continue
				}
				sameLayout(t, name+": "+s.Name, s, reflect.TypeOf(value))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(shared)) {
		if !seen[name] {
			t.Errorf("no map holds struct %s", name)
		}
	}
}

func sameLayout(t *testing.T, where string, c *btf.Struct, g reflect.Type) {
	t.Helper()
	if g.Kind() != reflect.Struct || g.Size() != uintptr(c.Size) {
		t.Errorf("%s has %d bytes in C and %d in Go", where, c.Size, g.Size())
		return
	}
	var fields int
	for i := range g.NumField() {
		if g.Field(i).Name != "_" {
			fields++
		}
	}
	if fields != len(c.Members) {
		t.Errorf("%s has %d fields in C and %d in Go", where, len(c.Members), fields)
	}
	for _, m := range c.Members {
		f, ok := g.FieldByNameFunc(func(name string) bool {
			return strings.EqualFold(name, strings.ReplaceAll(m.Name, "_", ""))
		})
		if !ok {
			t.Errorf("%s.%s is missing in Go", where, m.Name)
			continue
		}
		size, err := btf.Sizeof(m.Type)
		must(t, err)
		if uintptr(m.Offset.Bytes()) != f.Offset || uintptr(size) != f.Type.Size() {
			t.Errorf("%s.%s is %d bytes at %d in C and %d at %d in Go", where, m.Name, size, m.Offset.Bytes(), f.Type.Size(), f.Offset)
		}
		if s, ok := btf.UnderlyingType(m.Type).(*btf.Struct); ok {
			sameLayout(t, where+"."+m.Name, s, f.Type)
		}
	}
}

func TestEveryEnumeratorHasTheSameNumberInGoAndInEveryObject(t *testing.T) {
	want := map[string]map[string]uint64{
		"raven_flag": {"RAVEN_FLAG_ACCELERATE": uint64(flagAccelerate), "RAVEN_FLAG_GATEWAY": uint64(flagGateway),
			"RAVEN_FLAG_DIRECT": uint64(flagDirect)},
		"raven_member": {"RAVEN_MEMBER_OF_REGION": uint64(memberOfRegion), "RAVEN_MEMBER_PEER": uint64(memberPeer)},
		"raven_scope": {
			"RAVEN_SCOPE_REMOTE": uint64(scopeRemote), "RAVEN_SCOPE_IN_REGION": uint64(scopeInRegion),
			"RAVEN_SCOPE_LOCAL": uint64(scopeLocal), "RAVEN_SCOPE_HOST": uint64(scopeHost),
		},
		"raven_nexthop_kind": {
			"RAVEN_NEXTHOP_NONE": 0, "RAVEN_NEXTHOP_OVERLAY": uint64(kindOverlay), "RAVEN_NEXTHOP_DIRECT": uint64(kindDirect),
			"RAVEN_NEXTHOP_TUNNEL": uint64(kindTunnel),
		},
		"raven_nexthop_flag": {
			"RAVEN_NEXTHOP_HEALTHY": uint64(nexthopHealthy), "RAVEN_NEXTHOP_ETHERNET": uint64(nexthopEthernet),
		},
	}
	reasons, err := reasonNames()
	must(t, err)
	want["raven_reason"] = map[string]uint64{"RAVEN_REASON_MAX": uint64(len(reasons))}
	for i, r := range reasons {
		want["raven_reason"][fmt.Sprintf("RAVEN_%s_%s", strings.ToUpper(r.verdict), strings.ToUpper(r.name))] = uint64(i)
	}
	for name, load := range specOf {
		spec, err := load()
		must(t, err)
		for enum, values := range want {
			var c *btf.Enum
			if err := spec.Types.TypeByName(enum, &c); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			got := make(map[string]uint64)
			for _, v := range c.Values {
				got[v.Name] = v.Value
			}
			if !maps.Equal(got, values) {
				t.Errorf("%s: enum %s is %v in C and %v in Go", name, enum, got, values)
			}
		}
	}
}

func TestAllObjectsAgreeOnEveryMap(t *testing.T) {
	first, err := specOf[FromPod]()
	must(t, err)
	for name, load := range specOf {
		spec, err := load()
		must(t, err)
		for _, m := range spec.Maps {
			if strings.HasPrefix(m.Name, ".") {
				continue
			}
			want := first.Maps[m.Name]
			if want == nil {
				t.Errorf("%s has the map %s, which %s has not", name, m.Name, FromPod)
				continue
			}
			if m.Type != want.Type || m.MaxEntries != want.MaxEntries || m.Flags != want.Flags || m.Pinning != want.Pinning ||
				layout(m.Key) != layout(want.Key) || layout(m.Value) != layout(want.Value) {
				t.Errorf("%s and %s disagree on the map %s", name, FromPod, m.Name)
			}
		}
		if p := spec.Programs[name]; p == nil {
			t.Errorf("the object of %s holds no program of that name", name)
		}
	}
}

func TestTheABINumberIsThatOfTheHeader(t *testing.T) {
	header, err := os.ReadFile("../../../bpf/include/abi.h")
	must(t, err)
	m := regexp.MustCompile(`(?m)^#define RAVEN_ABI (\d+)$`).FindSubmatch(header)
	if m == nil || string(m[1]) != fmt.Sprint(ABI) {
		t.Errorf("the header says %q, this package %d", m, ABI)
	}
}
