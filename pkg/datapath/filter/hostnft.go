package filter

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// hostTable is iptables-nft's filter table of a family.
func hostTable(v6 bool) *nftables.Table {
	if v6 {
		return &nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv6}
	}
	return &nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4}
}

// readHostChains lists those chains of iptables-nft that exist and are hooked in, with their rules.
func readHostChains(c *nftables.Conn, v6 bool) (map[string][]*nftables.Rule, error) {
	t := hostTable(v6)
	chains, err := c.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return nil, fmt.Errorf("list nft chains: %w", err)
	}
	out := map[string][]*nftables.Rule{}
	for _, ch := range chains {
		if ch.Table.Name != t.Name || ch.Hooknum == nil || !slices.Contains(hostChains, ch.Name) {
			continue
		}
		rules, err := c.GetRules(t, ch)
		if err != nil {
			return nil, fmt.Errorf("list the rules of iptables-nft's chain %s: %w", ch.Name, err)
		}
		out[ch.Name] = rules
		if rules == nil {
			out[ch.Name] = []*nftables.Rule{}
		}
	}
	return out, nil
}

// place says how our rules stand in a chain.
type place int

const (
	placeRight     place = iota // at the head, complete, in order
	placeDisplaced              // complete and in order, but below others, none of which refuses packets itself
	placeBroken                 // missing, changed, doubled, or below a rule that refuses packets
)

// seen is what placing has to know of a rule in the chain.
type seen struct {
	ours    bool
	same    string // equal to the wanted rule's where it is the same
	refuses bool
}

// placing compares the rules of a chain with those that should be at its head.
func placing(chain []seen, want []string) place {
	var ours []string
	displaced, refused, below := false, false, false
	for _, r := range chain {
		if r.ours {
			ours = append(ours, r.same)
			displaced = displaced || below
			if refused {
				return placeBroken
			}
			continue
		}
		below = true
		refused = refused || r.refuses
	}
	switch {
	case !slices.Equal(ours, want):
		return placeBroken
	case displaced:
		return placeDisplaced
	}
	return placeRight
}

// applyHostNFT brings our rules in iptables-nft's chains to what is wanted, in one transaction. It never makes a chain:
// where there is none, nothing refuses.
func (a *Applier) applyHostNFT(ctx context.Context, c *session, v6 bool, want hostRules) (int, error) {
	t := hostTable(v6)
	var chains map[string][]*nftables.Rule
	if err := c.consistently(ctx, func() (err error) {
		chains, err = readHostChains(c.Conn, v6)
		return err
	}); err != nil {
		return 0, err
	}
	writes := 0
	for _, name := range hostChains {
		rules, exists := chains[name]
		if !exists {
			continue
		}
		specs := make([]ruleSpec, len(want[name]))
		prints := make([]string, len(want[name]))
		for i, r := range want[name] {
			specs[i] = ruleSpec{r.comment, r.exprs()}
			var err error
			if prints[i], err = fingerprint(t, specs[i]); err != nil {
				return 0, fmt.Errorf("rule %q for iptables-nft's chain %s: %w", r, name, err)
			}
		}
		switch placing(seenNFT(rules), prints) {
		case placeRight:
			continue
		case placeDisplaced:
			if !a.damper.allow(fmt.Sprintf("nft %d %s", t.Family, name)) {
				continue
			}
		}
		ch := &nftables.Chain{Name: name, Table: t}
		for _, r := range rules {
			if isOurs(r) {
				if err := c.DelRule(&nftables.Rule{Table: t, Chain: ch, Handle: r.Handle}); err != nil {
					return 0, fmt.Errorf("delete a rule of iptables-nft's chain %s: %w", name, err)
				}
			}
		}
		for i, s := range slices.Backward(specs) { // each goes to the head
			c.InsertRule(&nftables.Rule{Table: t, Chain: ch, Exprs: s.exprs, UserData: userData(s.comment, prints[i])})
		}
		writes++
	}
	if writes == 0 {
		return 0, nil
	}
	if err := c.Flush(); err != nil {
		return 0, fmt.Errorf("write our rules into iptables-nft's table (is the chain being rewritten by someone else? the next pass tries again): %w", err)
	}
	return 1, nil
}

func isOurs(r *nftables.Rule) bool { return slices.Contains(hostComments, commentOf(r)) }

func seenNFT(rules []*nftables.Rule) []seen {
	out := make([]seen, len(rules))
	for i, r := range rules {
		out[i] = seen{ours: isOurs(r), same: fingerprintOf(r), refuses: slices.ContainsFunc(r.Exprs, refuses)}
		if out[i].same == "" {
			out[i].same = cmp.Or(commentOf(r), "?") // rewritten by iptables-restore, say: ours, but not as we wrote it
		}
	}
	return out
}

// refuses says whether an expression ends a packet's way by itself. What a chain jumped to does is not looked into.
func refuses(e expr.Any) bool {
	switch e := e.(type) {
	case *expr.Verdict:
		return e.Kind == expr.VerdictDrop
	case *expr.Reject:
		return true
	case *expr.Target:
		return e.Name == "REJECT"
	}
	return false
}
