package filter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
)

// Deviations says in what the table differs from the plan, and writes nothing; empty: it does not.
func (a *Applier) Deviations(ctx context.Context, plan *topology.Plan, host datapath.Host) (out []string, err error) {
	if plan.Role == topology.RoleNone || plan.Role == "" {
		return nil, nil
	}
	r := rolesOf(plan, host, !a.opts.LoosePodSource)
	_, err = a.withSession(ctx, func(s *session) (int, error) {
		var state *tableState
		if err := s.consistently(ctx, func() (err error) {
			state, err = readTable(s.Conn)
			return err
		}); err != nil {
			return 0, err
		}
		switch {
		case !state.exists:
			out = append(out, "the nft table inet raven is missing")
			return 0, nil
		case state.dormant:
			out = append(out, "the nft table inet raven is dormant")
		}
		tx, err := planTable(state, wantedSets(plan, host), r.wantedChains())
		if err != nil {
			return 0, err
		}
		if n := len(tx.first) + len(tx.elements) + len(tx.last); n > 0 && !state.dormant {
			out = append(out, fmt.Sprintf("the nft table inet raven differs from the plan in %d places", n))
		}
		return 0, nil
	})
	return out, err
}

// Obstacles names rules of others in the host's nftables that get in the way of Raven's packets: those that drop the
// UDP ports, and translations of sources that come before Raven's exemption.
func (a *Applier) Obstacles(ctx context.Context, ports ...int) (out []string, err error) {
	_, err = a.withSession(ctx, func(s *session) (int, error) {
		var errs []error
		for _, family := range []nftables.TableFamily{
			nftables.TableFamilyINet, nftables.TableFamilyIPv4, nftables.TableFamilyIPv6,
		} {
			chains, err := s.ListChainsOfTableFamily(family)
			if err != nil {
				errs = append(errs, fmt.Errorf("list nft chains: %w", err))
				continue
			}
			for _, c := range chains {
				if c.Table.Name == TableName && family == nftables.TableFamilyINet {
					continue
				}
				rules, err := s.GetRules(c.Table, c)
				if err != nil {
					errs = append(errs, fmt.Errorf("list the rules of nft chain %s: %w", c.Name, err))
					continue
				}
				for _, r := range rules {
					if why := obstacle(c, r, ports); why != "" {
						out = append(out, fmt.Sprintf("a rule in chain %s of nft table %s %s", c.Name, c.Table.Name, why))
					}
				}
			}
		}
		return 0, errors.Join(errs...)
	})
	return out, err
}

// obstacle says what a rule does to Raven's packets; empty: nothing that is known.
func obstacle(c *nftables.Chain, r *nftables.Rule, ports []int) string {
	var port int
	var transport, drops, masquerades bool
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Payload:
			const destinationPort = 2 // offset in the headers of UDP and TCP
			transport = e.Base == expr.PayloadBaseTransportHeader && e.Offset == destinationPort && e.Len == 2
		case *expr.Cmp:
			if transport && e.Op == expr.CmpOpEq && len(e.Data) == 2 {
				port = int(binary.BigEndian.Uint16(e.Data))
			}
		case *expr.Verdict:
			drops = drops || e.Kind == expr.VerdictDrop
		case *expr.Reject:
			drops = true
		case *expr.Masq:
			masquerades = true
		case *expr.NAT:
			masquerades = masquerades || e.Type == expr.NATTypeSourceNAT
		}
	}
	if drops {
		for _, p := range ports {
			if port == p {
				return fmt.Sprintf("drops packets to port %d", p)
			}
		}
	}
	early := c.Hooknum != nil && *c.Hooknum == unix.NF_INET_POST_ROUTING && c.Priority != nil &&
		*c.Priority < *nftables.ChainPriorityNATSource-1
	if masquerades && early {
		return fmt.Sprintf("translates sources at priority %d, before Raven's exemption at %d",
			*c.Priority, *nftables.ChainPriorityNATSource-1)
	}
	return ""
}
