package filter

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
)

// need is what a firewall has to let through on one hook.
type need struct {
	hook    string
	devices []string // a rule names each of them by iifname or oifname...
	port    uint16   // ...or this port of UDP; 0: devices count
	purpose string
	rule    string // the accepting rule to add, but for its comment
	// comment begins that of a rule by which an administrator says that the table admits this.
	comment string
}

// needs lists what this node needs of firewalls that see a family.
func (r roles) needs(plan *topology.Plan, host datapath.Host, v6 bool) map[nftables.ChainHook]need {
	out := map[nftables.ChainHook]need{}
	planned := slices.ContainsFunc(plan.Prefixes, func(p topology.Prefix) bool { return p.Prefix.Addr().Is6() == v6 })
	if r.gateway && len(r.tunnels) > 0 && planned {
		names := `{ "` + strings.Join(r.devices(), `", "`) + `" }`
		out[*nftables.ChainHookForward] = need{
			hook: "forward", devices: r.devices(), purpose: "transit between " + strings.Join(r.devices(), " and "),
			rule: "iifname " + names + " oifname " + names + " accept", comment: hostCommentTransit,
		}
	}
	if plan.Overlay != nil && plan.Overlay.Underlay.Unmap().Is6() == v6 {
		out[*nftables.ChainHookInput] = need{
			hook: "input", port: datapath.OverlayPort, purpose: "the VXLAN of the region's members",
			rule:    fmt.Sprintf(`iifname { "%s" } udp dport %d accept`, strings.Join(underlays(host), `", "`), datapath.OverlayPort),
			comment: hostCommentVXLAN,
		}
	}
	return out
}

// firewallWarnings names the base chains of native nft firewalls that refuse what their rules do not accept, and have no
// rule that names what Raven needs. An accept in a table of ours cannot overrule them, and rules in tables that some
// other program writes would not last, so the administrator has to add them. iptables' own chains are not among them:
// there we keep our rules ourselves.
func firewallWarnings(c *nftables.Conn, needs func(v6 bool) map[nftables.ChainHook]need) ([]string, error) {
	var out []string
	for _, family := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		chains, err := c.ListChainsOfTableFamily(family)
		if err != nil {
			return nil, fmt.Errorf("list nft chains: %w", err)
		}
		wanted := needs(family == nftables.TableFamilyIPv6)
		if family == nftables.TableFamilyINet {
			for hook, n := range needs(true) {
				if _, known := wanted[hook]; !known {
					wanted[hook] = n
				}
			}
		}
		for _, ch := range chains {
			if ch.Hooknum == nil || ch.Type != nftables.ChainTypeFilter || tendedByUs(ch) {
				continue
			}
			n, concerned := wanted[*ch.Hooknum]
			if !concerned {
				continue
			}
			how, err := refusesTheRest(c, ch)
			if err != nil {
				return nil, err
			}
			if how == "" {
				continue
			}
			admitted, err := admits(c, chains, ch.Table, n)
			if err != nil {
				return nil, err
			}
			if !admitted {
				name := fmt.Sprintf("%s %s %s", familyName(family), ch.Table.Name, ch.Name)
				out = append(out, fmt.Sprintf("the host's firewall chain %s (hook %s) %s, and no rule of its table admits %s: add `%s comment %q` "+
					"before what it refuses; where another rule admits it already, give that one the comment",
					name, n.hook, how, n.purpose, n.rule, n.comment))
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	}
	return "inet"
}

// tendedByUs says whether a chain is of Raven's table, or one of iptables' that holds our rules.
func tendedByUs(ch *nftables.Chain) bool {
	if ch.Table.Family == nftables.TableFamilyINet {
		return ch.Table.Name == TableName
	}
	return ch.Table.Name == hostTable(false).Name && slices.Contains(hostChains, ch.Name)
}

// refusesTheRest says how a base chain ends the way of a packet that none of its rules accepts; empty: it does not.
func refusesTheRest(c *nftables.Conn, ch *nftables.Chain) (how string, err error) {
	if ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop {
		return "has policy drop", nil
	}
	rules, err := c.GetRules(ch.Table, ch)
	if err != nil {
		return "", fmt.Errorf("list the rules of nft chain %s %s: %w", ch.Table.Name, ch.Name, err)
	}
	if len(rules) == 0 {
		return "", nil
	}
	for _, e := range rules[len(rules)-1].Exprs {
		switch {
		case refuses(e):
			return "refuses all in its last rule", nil
		case !isNote(e):
			return "", nil // a condition
		}
	}
	return "", nil
}

// isNote is true for what neither judges a packet nor depends on it.
func isNote(e expr.Any) bool {
	switch e.(type) {
	case *expr.Counter, *expr.Log, *expr.Objref:
		return true
	}
	return false
}

// admits says whether rules of a table that do not refuse name all that is needed. Firewalls spread their rules over many
// chains, so it is the table that counts; what the rules go on to do is not looked into.
func admits(c *nftables.Conn, chains []*nftables.Chain, table *nftables.Table, n need) (bool, error) {
	missing := slices.Clone(n.devices)
	for _, ch := range chains {
		if ch.Table.Name != table.Name {
			continue
		}
		rules, err := c.GetRules(table, ch)
		if err != nil {
			return false, fmt.Errorf("list the rules of nft chain %s %s: %w", table.Name, ch.Name, err)
		}
		for _, r := range rules {
			if slices.ContainsFunc(r.Exprs, refuses) {
				continue
			}
			if strings.HasPrefix(commentOf(r), n.comment) {
				return true, nil
			}
			values, err := comparedWith(c, table, r.Exprs, n.port != 0)
			if err != nil {
				return false, err
			}
			if n.port != 0 && slices.ContainsFunc(values, func(v []byte) bool {
				return bytes.HasPrefix(v, binaryutil.BigEndian.PutUint16(n.port))
			}) {
				return true, nil
			}
			missing = slices.DeleteFunc(missing, func(device string) bool {
				return slices.ContainsFunc(values, func(v []byte) bool { return namesDevice(v, device) })
			})
			if len(n.devices) > 0 && len(missing) == 0 {
				return true, nil
			}
		}
	}
	return false, nil
}

// namesDevice says whether a value is a device's name, possibly one of several in a key, or a wildcard for it.
func namesDevice(value []byte, device string) bool {
	return bytes.Contains(value, append([]byte(device), 0)) || len(value) > 0 && bytes.HasPrefix(ifname(device), value)
}

// comparedWith lists the values, also those in sets, with which a rule compares the destination port or else the names of
// the packet's devices.
func comparedWith(c *nftables.Conn, table *nftables.Table, exprs []expr.Any, port bool) (values [][]byte, err error) {
	loaded := false
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Meta:
			loaded = !port && (e.Key == expr.MetaKeyIIFNAME || e.Key == expr.MetaKeyOIFNAME)
		case *expr.Payload:
			loaded = port && e.Base == expr.PayloadBaseTransportHeader && e.Offset == 2
		case *expr.Cmp:
			if loaded && e.Op == expr.CmpOpEq {
				values = append(values, e.Data)
			}
		case *expr.Lookup:
			if !loaded || e.Invert {
				continue
			}
			elements, err := c.GetSetElements(&nftables.Set{Table: table, Name: e.SetName})
			if err != nil {
				return nil, fmt.Errorf("list the elements of nft set %s %s: %w", table.Name, e.SetName, err)
			}
			for _, el := range elements {
				values = append(values, el.Key)
			}
		}
	}
	return values, nil
}

// Warnings says what in the host's own firewall may keep packets from passing, as the last Apply found it: one sentence
// with the remedy for each chain, in order. They are no errors of Apply, since what Raven has to do is done. It may be
// called from any goroutine.
func (a *Applier) Warnings() []string {
	a.warned.mu.Lock()
	defer a.warned.mu.Unlock()
	return slices.Clone(a.warned.texts)
}

// warnings are kept for who asks.
type warnings struct {
	mu    sync.Mutex
	texts []string
	seen  string // what they were made of; only Apply's
}

func (w *warnings) set(seen string, texts []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen, w.texts = seen, texts
}

// lookForFirewalls renews the warnings, unless neither the ruleset nor what is needed changed since they were made.
func (a *Applier) lookForFirewalls(ctx context.Context, s *session, needs func(v6 bool) map[nftables.ChainHook]need) error {
	generation, err := s.generation()
	if err != nil {
		return err
	}
	seen := fmt.Sprint(generation, needs(false), needs(true))
	if a.warned.seen == seen {
		return nil
	}
	var texts []string
	if err := s.consistently(ctx, func() (err error) {
		texts, err = firewallWarnings(s.Conn, needs)
		return err
	}); err != nil {
		return fmt.Errorf("look for firewalls of the host: %w", err)
	}
	a.warned.set(seen, texts)
	return nil
}
