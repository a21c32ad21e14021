package inventory

import (
	"maps"
	"slices"
)

// Block is a prefix that Calico's address manager gave to a node.
type Block struct{ Node, CIDR string }

type blocks struct {
	byName map[string]Block
	byNode map[string]names // node -> names of blocks
}

func newBlocks() blocks { return blocks{byName: map[string]Block{}, byNode: map[string]names{}} }

// SetBlock takes a BlockAffinity by its name; the zero Block says that it is deleted, or not confirmed.
func (v *Inventory) SetBlock(name string, b Block) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.blocks.byName[name]
	if old == b {
		return nil
	}
	touched := names{}
	for _, node := range []string{old.Node, b.Node} {
		if home := v.home[node]; home != "" {
			touched[home] = struct{}{}
		}
	}
	if old.Node != "" {
		remove(v.blocks.byNode, old.Node, name)
		delete(v.blocks.byName, name)
	}
	if b.Node != "" {
		add(v.blocks.byNode, b.Node, name)
		v.blocks.byName[name] = b
	}
	return touched.sorted()
}

// Subnets are the prefixes that Calico gave to a node, sorted; nil: none.
func (v *Inventory) Subnets(node string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []string
	for name := range maps.Keys(v.blocks.byNode[node]) {
		out = append(out, v.blocks.byName[name].CIDR)
	}
	slices.Sort(out)
	return out
}
