package route

import (
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/rtnl"
)

// ours: rules are owned by (priority, table, protocol).
func ours(r rtnl.Rule) bool {
	return r.Priority == datapath.RulePriority && r.Protocol == datapath.RouteProtocol &&
		(r.Table == datapath.TableRemote || r.Table == datapath.TableInRegion)
}

// diffRules returns the deletions and the additions of one family.
func diffRules(want []rtnl.Rule, have []rtnl.RawRule, family uint8) (gone, added []rtnl.Request) {
	missing := map[rtnl.Rule]bool{}
	for _, w := range want {
		if w.Family == family {
			missing[w] = true
		}
	}
	for _, h := range have {
		switch {
		case missing[h.Rule]:
			delete(missing, h.Rule)
		case ours(h.Rule): // not wanted, or there twice
			gone = append(gone, rtnl.Request{Type: unix.RTM_DELRULE, Payload: h.Payload})
		}
	}
	for _, w := range want { // in the order of want
		if missing[w] {
			added = append(added, rtnl.Request{
				Type: unix.RTM_NEWRULE, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Payload: w.Payload(),
			})
		}
	}
	return gone, added
}

// diffRoutes returns the writes of one family and table, additions in the order of want. A route that differs under the
// same key is replaced in one write; of several under one key the kernel replaces the first, and the next pass sees
// to the rest.
func diffRoutes(want []rtnl.Route, have []rtnl.RawRoute, family uint8, table uint32) (writes []rtnl.Request) {
	wanted := make(map[rtnl.RouteKey]rtnl.Route, len(want))
	for _, w := range want {
		if rtnl.Family(w.Prefix.Addr()) == family {
			wanted[w.Key()] = w
		}
	}
	present := make(map[rtnl.RouteKey]bool, len(have))
	for _, h := range have {
		w, ok := wanted[h.Key()]
		if ok && w == h.Route {
			present[h.Key()] = true
		}
	}
	kept := make(map[rtnl.RouteKey]bool, len(have))
	for _, h := range have {
		w, ok := wanted[h.Key()]
		exact := ok && w == h.Route
		replaced := ok && !present[h.Key()]
		if (exact || replaced) && !kept[h.Key()] {
			kept[h.Key()] = true
			continue
		}
		writes = append(writes, rtnl.Request{Type: unix.RTM_DELROUTE, Payload: h.Payload})
	}
	for _, w := range want {
		if rtnl.Family(w.Prefix.Addr()) == family && !present[w.Key()] {
			present[w.Key()] = true
			writes = append(writes, rtnl.Request{
				Type: unix.RTM_NEWROUTE, Flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE, Payload: w.Payload(table),
			})
		}
	}
	return writes
}
