package filter

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/google/nftables/xt"
)

// TableName is the name of Raven's nft table, of family inet.
const TableName = "raven"

// udataFingerprint is the type of the entry in a rule's user data that holds its fingerprint; the nft tool knows types
// up to 1 and skips others.
const udataFingerprint userdata.Type = 'R'

func ravenTable() *nftables.Table {
	return &nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}
}

// fingerprint identifies a rule by its content. It is kept in the rule's user data, since the kernel gives back neither
// the bytes nor always the form in which a rule was written; a rule that someone else replaces has none.
func fingerprint(t *nftables.Table, r ruleSpec) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00", r.comment)
	for _, e := range r.exprs {
		b, err := expr.Marshal(byte(t.Family), e)
		if err != nil {
			return "", fmt.Errorf("encode expression %T: %w", e, err)
		}
		fmt.Fprintf(h, "%d\x00%s", len(b), b)
	}
	return string(h.Sum(nil)[:12]), nil
}

// userData makes a rule's user data: the comment that the nft tool prints, and the fingerprint.
func userData(comment, print string) []byte {
	var b []byte
	if comment != "" {
		b = userdata.AppendString(b, userdata.TypeComment, comment)
	}
	return userdata.Append(b, udataFingerprint, []byte(print))
}

// fingerprintOf reads the fingerprint back; it is empty for rules that are not ours.
func fingerprintOf(r *nftables.Rule) string {
	for b := r.UserData; len(b) >= 2 && len(b) >= 2+int(b[1]); b = b[2+int(b[1]):] {
		if userdata.Type(b[0]) == udataFingerprint {
			return string(b[2 : 2+int(b[1])])
		}
	}
	return ""
}

// commentOf reads a rule's comment, which iptables-nft keeps in a match of its own; it is empty where there is none.
func commentOf(r *nftables.Rule) string {
	for _, e := range r.Exprs {
		if m, ok := e.(*expr.Match); ok && m.Name == "comment" {
			if c, ok := m.Info.(*xt.Comment); ok {
				return strings.TrimRight(string(*c), "\x00")
			}
		}
	}
	for b := r.UserData; len(b) >= 2 && len(b) >= 2+int(b[1]); b = b[2+int(b[1]):] {
		if userdata.Type(b[0]) == userdata.TypeComment {
			return string(bytes.TrimRight(b[2:2+int(b[1])], "\x00"))
		}
	}
	return ""
}

// tableState is the table as the kernel has it.
type tableState struct {
	exists, dormant bool
	chains          map[string]*nftables.Chain
	rules           map[string][]string // chain -> fingerprints, in order
	sets            map[string]*nftables.Set
	elements        map[string][]element
	broken          map[string]bool // sets whose elements make no sense
	objects         map[string]*nftables.NamedObj
}

// readTable lists the table.
func readTable(c *nftables.Conn) (*tableState, error) {
	s := &tableState{
		chains: map[string]*nftables.Chain{}, rules: map[string][]string{}, sets: map[string]*nftables.Set{},
		elements: map[string][]element{}, broken: map[string]bool{}, objects: map[string]*nftables.NamedObj{},
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list nft tables: %w", err)
	}
	for _, t := range tables {
		if t.Name == TableName {
			s.exists, s.dormant = true, t.Flags != 0 // dormant is the one flag that anyone can set on another's table
		}
	}
	if !s.exists {
		return s, nil
	}
	t := ravenTable()
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list nft chains: %w", err)
	}
	for _, ch := range chains {
		if ch.Table.Name != TableName {
			continue
		}
		s.chains[ch.Name] = ch
		rules, err := c.GetRules(t, ch)
		if err != nil {
			return nil, fmt.Errorf("list the rules of nft chain %s: %w", ch.Name, err)
		}
		for _, r := range rules {
			s.rules[ch.Name] = append(s.rules[ch.Name], fingerprintOf(r))
		}
	}
	sets, err := c.GetSets(t)
	if err != nil {
		return nil, fmt.Errorf("list nft sets: %w", err)
	}
	for _, set := range sets {
		if set.Anonymous {
			continue // lives and dies with the rule that holds it
		}
		set.Table = t
		s.sets[set.Name] = set
		es, err := c.GetSetElements(set)
		if err != nil {
			return nil, fmt.Errorf("list the elements of nft set %s: %w", set.Name, err)
		}
		if s.elements[set.Name], err = decode(es, set.Interval); err != nil {
			s.broken[set.Name] = true
		}
	}
	objects, err := c.GetNamedObjects(t)
	if err != nil {
		return nil, fmt.Errorf("list nft counters: %w", err)
	}
	for _, o := range objects {
		if n, ok := o.(*nftables.NamedObj); ok {
			s.objects[n.Name] = n
		}
	}
	return s, nil
}
