package filter

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// elementsPerMessage keeps one netlink attribute (64 KiB) above a message's elements: an IPv6 interval takes up to 72
// bytes.
const elementsPerMessage = 500

// messageBytes bounds one message of elements, with its headers.
const messageBytes = elementsPerMessage*72 + 256

// transaction is a sequence of changes to the table. They reach the kernel as one atomic batch, unless there are more
// elements than the socket takes: then the elements go first, in batches of their own, and the rules that use them last.
type transaction struct {
	table    *nftables.Table
	first    []func(*nftables.Conn) error // table, counters, sets
	elements []func(*nftables.Conn) error // each one message
	last     []func(*nftables.Conn) error // chains, rules, removals
}

func (t *transaction) empty() bool { return len(t.first)+len(t.elements)+len(t.last) == 0 }

// commit writes the changes and returns the number of batches; batchBytes is what one batch may hold.
func (t *transaction) commit(c *nftables.Conn, batchBytes int) (int, error) {
	if t.empty() {
		return 0, nil
	}
	perBatch := max(1, batchBytes/messageBytes-1) // the first and last changes are smaller than one message of elements
	var batches [][]func(*nftables.Conn) error
	for chunk := range slices.Chunk(t.elements, perBatch) {
		batches = append(batches, chunk)
	}
	if len(batches) == 0 {
		batches = append(batches, nil)
	}
	batches[0] = slices.Concat(t.first, batches[0])
	if n := len(batches) - 1; len(t.last) > 0 {
		if n == 0 {
			batches[0] = slices.Concat(batches[0], t.last)
		} else {
			batches = append(batches, t.last)
		}
	}
	for i, b := range batches {
		for _, change := range b {
			if err := change(c); err != nil {
				return i, err
			}
		}
		if err := c.Flush(); err != nil {
			return i, fmt.Errorf("write nft table %s (batch %d of %d): %w", TableName, i+1, len(batches), err)
		}
	}
	return len(batches), nil
}

// planTable computes what brings the table from state to the wanted sets and chains.
func planTable(s *tableState, sets []setSpec, chains []chainSpec) (*transaction, error) {
	tx := &transaction{table: ravenTable()}
	if s.exists && !s.fits(sets, chains) {
		// An object of ours that is something else now cannot be changed in place, nor removed while rules refer to it.
		tx.first = append(tx.first, func(c *nftables.Conn) error { c.DelTable(tx.table); return nil })
		s = &tableState{}
	}
	if !s.exists || s.dormant {
		tx.first = append(tx.first, func(c *nftables.Conn) error { c.AddTable(tx.table); return nil })
	}
	for _, name := range counterNames {
		if s.objects[name] == nil {
			tx.first = append(tx.first, func(c *nftables.Conn) error {
				c.AddObj(&nftables.NamedObj{Table: tx.table, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
				return nil
			})
		}
	}
	for i := range sets {
		tx.planSet(s, &sets[i])
	}
	if err := tx.planChains(s, chains); err != nil {
		return nil, err
	}
	tx.planForeign(s, sets, chains)
	return tx, nil
}

// fits says whether every object of ours that exists is of the kind that we want.
func (s *tableState) fits(sets []setSpec, chains []chainSpec) bool {
	for i := range sets {
		if k := s.sets[sets[i].name]; k != nil && !sets[i].like(k) {
			return false
		}
	}
	for i := range chains {
		if k := s.chains[chains[i].name]; k != nil && !chains[i].like(k) {
			return false
		}
	}
	for _, name := range counterNames {
		if o := s.objects[name]; o != nil && o.Type != nftables.ObjTypeCounter {
			return false
		}
	}
	return true
}

// like says whether a chain of the kernel hangs where c should.
func (c *chainSpec) like(k *nftables.Chain) bool {
	if c.hook == nil {
		return k.Hooknum == nil
	}
	return k.Hooknum != nil && *k.Hooknum == *c.hook && k.Priority != nil && *k.Priority == c.priority && k.Type == c.kind
}

func (tx *transaction) planSet(s *tableState, spec *setSpec) {
	set := spec.set(tx.table)
	if s.sets[spec.name] == nil {
		tx.first = append(tx.first, func(c *nftables.Conn) error {
			if err := c.AddSet(set, nil); err != nil {
				return fmt.Errorf("encode nft set %s: %w", set.Name, err)
			}
			return nil
		})
	}
	have := s.elements[spec.name]
	if s.broken[spec.name] {
		have = nil
		tx.elements = append(tx.elements, func(c *nftables.Conn) error { c.FlushSet(set); return nil })
	}
	del, add := diff(have, spec.elements)
	// What goes makes room for what comes: a span that is split is deleted and added in parts.
	for chunk := range slices.Chunk(del, elementsPerMessage) {
		tx.elements = append(tx.elements, func(c *nftables.Conn) error {
			if err := c.SetDeleteElements(set, encode(chunk)); err != nil {
				return fmt.Errorf("encode elements to delete from nft set %s: %w", set.Name, err)
			}
			return nil
		})
	}
	for chunk := range slices.Chunk(add, elementsPerMessage) {
		tx.elements = append(tx.elements, func(c *nftables.Conn) error {
			if err := c.SetAddElements(set, encode(chunk)); err != nil {
				return fmt.Errorf("encode elements to add to nft set %s: %w", set.Name, err)
			}
			return nil
		})
	}
}

func (tx *transaction) planChains(s *tableState, chains []chainSpec) error {
	// All chains come before all rules, since rules go to chains.
	for i := range chains {
		spec := &chains[i]
		if k := s.chains[spec.name]; k == nil || k.Policy != nil && *k.Policy != nftables.ChainPolicyAccept {
			tx.last = append(tx.last, func(c *nftables.Conn) error { c.AddChain(spec.chain(tx.table)); return nil })
		}
	}
	for i := range chains {
		spec := &chains[i]
		prints := make([]string, len(spec.rules))
		for j, r := range spec.rules {
			var err error
			if prints[j], err = fingerprint(tx.table, r); err != nil {
				return fmt.Errorf("rule %d of nft chain %s: %w", j+1, spec.name, err)
			}
		}
		if slices.Equal(prints, s.rules[spec.name]) {
			continue
		}
		tx.last = append(tx.last, func(c *nftables.Conn) error {
			ch := spec.chain(tx.table)
			if len(s.rules[spec.name]) > 0 {
				c.FlushChain(ch)
			}
			for j, r := range spec.rules {
				c.AddRule(&nftables.Rule{Table: tx.table, Chain: ch, Exprs: r.exprs, UserData: userData(r.comment, prints[j])})
			}
			return nil
		})
	}
	return nil
}

// planForeign removes what stands in our table and is not ours: an older version's objects, or someone's additions.
func (tx *transaction) planForeign(s *tableState, sets []setSpec, chains []chainSpec) {
	var strangers []*nftables.Chain
	for name, k := range s.chains {
		if !slices.ContainsFunc(chains, func(c chainSpec) bool { return c.name == name }) {
			strangers = append(strangers, k)
		}
	}
	slices.SortFunc(strangers, func(a, b *nftables.Chain) int { return cmp.Compare(a.Name, b.Name) })
	for _, k := range strangers { // emptied first: they may jump to one another
		k.Table = tx.table
		tx.last = append(tx.last, func(c *nftables.Conn) error { c.FlushChain(k); return nil })
	}
	for _, k := range strangers {
		tx.last = append(tx.last, func(c *nftables.Conn) error { c.DelChain(k); return nil })
	}
	for name, k := range s.sets {
		if !slices.ContainsFunc(sets, func(w setSpec) bool { return w.name == name }) {
			tx.last = append(tx.last, func(c *nftables.Conn) error { c.DelSet(k); return nil })
		}
	}
	for name, o := range s.objects {
		if !slices.Contains(counterNames, name) {
			tx.last = append(tx.last, func(c *nftables.Conn) error { c.DeleteObject(o); return nil })
		}
	}
}

// chain is the form in which the netlink library takes it.
func (c *chainSpec) chain(t *nftables.Table) *nftables.Chain {
	out := &nftables.Chain{Name: c.name, Table: t}
	if c.hook != nil {
		policy := nftables.ChainPolicyAccept
		out.Type, out.Hooknum, out.Priority, out.Policy = c.kind, c.hook, nftables.ChainPriorityRef(c.priority), &policy
	}
	return out
}
