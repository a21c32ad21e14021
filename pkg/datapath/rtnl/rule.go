package rtnl

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Rule is a policy routing rule, as far as Raven writes rules. It is comparable.
type Rule struct {
	Family   uint8
	Priority uint32
	Table    uint32
	Protocol uint8
	// Incoming is the name of the device that packets must come from; empty for any.
	Incoming string
	// Other is true where a dumped rule has selectors or an action that Rule does not show.
	Other bool
}

// RawRule is a dumped rule with the message that names it exactly.
type RawRule struct {
	Rule
	// Payload deletes this very rule as a RTM_DELRULE.
	Payload []byte
}

// struct fib_rule_hdr: family, dst_len, src_len, tos, table, res1, res2, action, flags (4 bytes).
const ruleHeaderBytes = 12

// From linux/fib_rules.h.
const (
	ruleActionTable  = 1          // FR_ACT_TO_TBL
	ruleFlagDetached = 0x8 | 0x10 // FIB_RULE_IIF_DETACHED, FIB_RULE_OIF_DETACHED: the named device is absent
	suppressNothing  = ^uint32(0)
)

// Rules dumps all rules of one family (AF_INET, AF_INET6), in the order in which the kernel asks them.
func (c *Conn) Rules(family uint8) ([]RawRule, error) {
	payloads, err := c.Dump(unix.RTM_GETRULE, append([]byte{family}, make([]byte, ruleHeaderBytes-1)...))
	if err != nil {
		return nil, fmt.Errorf("list %s rules: %w", FamilyName(family), err)
	}
	rules := make([]RawRule, 0, len(payloads))
	for _, p := range payloads {
		if r, ok := ParseRule(p); ok && r.Family == family {
			rules = append(rules, RawRule{Rule: r, Payload: p})
		}
	}
	return rules, nil
}

// Payload encodes the rule for RTM_NEWRULE.
func (r Rule) Payload() []byte {
	b := make([]byte, ruleHeaderBytes, 64)
	b[0], b[7] = r.Family, ruleActionTable
	b = AppendUint32(b, unix.FRA_TABLE, r.Table)
	b = AppendUint32(b, unix.FRA_PRIORITY, r.Priority)
	b = AppendAttribute(b, unix.FRA_PROTOCOL, []byte{r.Protocol})
	if r.Incoming != "" {
		b = AppendAttribute(b, unix.FRA_IIFNAME, append([]byte(r.Incoming), 0))
	}
	return b
}

// ParseRule reads the payload of a rule message; ok is false where it is cut short.
func ParseRule(p []byte) (r Rule, ok bool) {
	if len(p) < ruleHeaderBytes {
		return Rule{}, false
	}
	flags := native.Uint32(p[8:])
	r = Rule{
		Family: p[0], Table: uint32(p[4]),
		Other: p[1] != 0 || p[2] != 0 || p[3] != 0 || p[7] != ruleActionTable || flags&^ruleFlagDetached != 0,
	}
	for a := range Attributes(p[ruleHeaderBytes:]) {
		switch a.Type {
		case unix.FRA_TABLE:
			r.Table = a.Uint32()
		case unix.FRA_PRIORITY:
			r.Priority = a.Uint32()
		case unix.FRA_PROTOCOL:
			if len(a.Value) > 0 {
				r.Protocol = a.Value[0]
			}
		case unix.FRA_IIFNAME:
			r.Incoming = a.Text()
		case unix.FRA_SUPPRESS_PREFIXLEN, unix.FRA_SUPPRESS_IFGROUP:
			r.Other = r.Other || a.Uint32() != suppressNothing
		default:
			r.Other = true
		}
	}
	return r, true
}
