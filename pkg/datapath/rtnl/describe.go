package rtnl

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Describe names what a request does, in the words of ip(8), for errors.
func Describe(r Request) string {
	switch r.Type {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if route, table, ok := parseRoute(r.Payload); ok {
			return fmt.Sprintf("%s route %s table %d", verb(r.Type == unix.RTM_DELROUTE), route.Prefix, table)
		}
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		if rule, ok := ParseRule(r.Payload); ok {
			iif := ""
			if rule.Incoming != "" {
				iif = " iif " + rule.Incoming
			}
			return fmt.Sprintf("%s %s rule%s priority %d table %d", verb(r.Type == unix.RTM_DELRULE),
				FamilyName(rule.Family), iif, rule.Priority, rule.Table)
		}
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		n, ok := parseNeighbour(r.Payload)
		if ok && n.Family == unix.AF_BRIDGE {
			return fmt.Sprintf("%s forwarding entry %s -> %s", verb(r.Type == unix.RTM_DELNEIGH), n.MAC, n.Addr)
		}
		if ok {
			return fmt.Sprintf("%s neighbour %s -> %s", verb(r.Type == unix.RTM_DELNEIGH), n.Addr, n.MAC)
		}
	}
	return fmt.Sprintf("netlink request of type %d", r.Type)
}

func verb(deletion bool) string {
	if deletion {
		return "delete"
	}
	return "set"
}
