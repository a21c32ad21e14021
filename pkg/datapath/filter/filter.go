package filter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
)

// Options of an Applier; the zero value is the default.
type Options struct {
	// LoosePodSource admits a local pod source from any device but the underlay's, for CNIs whose pods' packets come in
	// on another device than the route to the pod names. By default the two must be one, so that no pod can use an
	// address behind another device.
	LoosePodSource bool
}

// Applier keeps the packet filter. It may be used from one goroutine at a time, but for Watch, Counters
// and Warnings.
type Applier struct {
	opts   Options
	own    portIDs
	damper *damper
	warned warnings
}

var _ datapath.Applier = (*Applier)(nil)

// New makes an Applier; it touches nothing yet.
func New(opts Options) *Applier { return &Applier{opts: opts, damper: newDamper(time.Now)} }

// Name is filter.
func (a *Applier) Name() string { return "filter" }

// Apply brings table and host chains to what plan wants and returns the number of transactions that took.
func (a *Applier) Apply(ctx context.Context, plan *topology.Plan, host datapath.Host) (int, error) {
	if plan.Role == topology.RoleNone || plan.Role == "" {
		return a.remove(ctx)
	}
	if plan.Overlay != nil && len(underlays(host)) == 0 {
		return 0, errors.New("no device is known that leads to the region's members: the packet filter stays as it is, since it would refuse their VXLAN; check the node's address and routes")
	}
	r := rolesOf(plan, host, !a.opts.LoosePodSource)
	changes, err := a.parts(ctx, func(s *session) (int, error) {
		return applyTable(ctx, s, wantedSets(plan, host), r.wantedChains())
	}, func(v6 bool) hostRules { return r.wantedHostRules(v6, plan, host) })
	if _, err := a.withSession(ctx, func(s *session) (int, error) {
		return 0, a.lookForFirewalls(ctx, s, func(v6 bool) map[nftables.ChainHook]need { return r.needs(plan, host, v6) })
	}); err != nil { // others' rules that cannot be read are no failure of ours
		a.warned.set("", []string{fmt.Sprintf("whether a firewall of the host refuses Raven's packets is not known: %v", err)})
	}
	return changes, err
}

// parts brings the table and both families' host chains to what is wanted, each by itself: one that fails leaves the
// others alone. It returns the number of transactions.
func (a *Applier) parts(ctx context.Context, table func(*session) (int, error), want func(v6 bool) hostRules) (int, error) {
	changes, err := a.withSession(ctx, table)
	for _, v6 := range []bool{false, true} {
		n, hostErr := a.withSession(ctx, func(s *session) (int, error) { return a.applyHostNFT(ctx, s, v6, want(v6)) })
		m, legacyErr := a.applyHostLegacy(ctx, v6, want(v6))
		changes, err = changes+n+m, errors.Join(err, hostErr, legacyErr)
	}
	return changes, err
}

// withSession runs f with a netlink socket of its own.
func (a *Applier) withSession(ctx context.Context, f func(*session) (int, error)) (int, error) {
	s, err := a.open(ctx)
	if err != nil {
		return 0, err
	}
	n, err := f(s)
	if closeErr := s.CloseLasting(); closeErr != nil {
		err = errors.Join(err, fmt.Errorf("close the netlink socket: %w", closeErr))
	}
	return n, err
}

func applyTable(ctx context.Context, s *session, sets []setSpec, chains []chainSpec) (int, error) {
	var state *tableState
	err := s.consistently(ctx, func() (err error) {
		state, err = readTable(s.Conn)
		return err
	})
	if err != nil {
		return 0, err
	}
	tx, err := planTable(state, sets, chains)
	if err != nil {
		return 0, err
	}
	return tx.commit(s.Conn, s.batchBytes)
}

// Cleanup removes the table and the rules in the host's chains.
func (a *Applier) Cleanup(ctx context.Context) error {
	_, err := a.remove(ctx)
	return err
}

func (a *Applier) remove(ctx context.Context) (int, error) {
	a.warned.set("", nil)
	return a.parts(ctx, removeTable, func(bool) hostRules { return nil })
}

func removeTable(s *session) (int, error) {
	tables, err := s.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return 0, fmt.Errorf("list nft tables: %w", err)
	}
	for _, t := range tables {
		if t.Name != TableName {
			continue
		}
		s.DelTable(ravenTable())
		if err := s.Flush(); err != nil {
			return 0, fmt.Errorf("delete nft table %s: %w", TableName, err)
		}
		return 1, nil
	}
	return 0, nil
}

// Counter is what one drop has met so far. It counts on through every Apply, until the table is removed.
type Counter struct {
	Packets uint64
	Bytes   uint64 // of the IP packet
}

// Counters returns the drops of the table by reason, as in the Counter constants; none where there is no table.
func (a *Applier) Counters(ctx context.Context) (map[string]Counter, error) {
	var out map[string]Counter
	_, err := a.withSession(ctx, func(s *session) (_ int, err error) {
		out, err = counters(s)
		return 0, err
	})
	return out, err
}

func counters(s *session) (map[string]Counter, error) {
	tables, err := s.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list nft tables: %w", err)
	}
	out := map[string]Counter{}
	for _, t := range tables {
		if t.Name != TableName {
			continue
		}
		objects, err := s.GetNamedObjects(ravenTable())
		if err != nil {
			return nil, fmt.Errorf("list nft counters: %w", err)
		}
		for _, o := range objects {
			if n, ok := o.(*nftables.NamedObj); ok && n.Type == nftables.ObjTypeCounter {
				if c, ok := n.Obj.(*expr.Counter); ok {
					out[n.Name] = Counter{c.Packets, c.Bytes}
				}
			}
		}
	}
	return out, nil
}
