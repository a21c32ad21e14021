package topology

// via returns the region that a's gateway has as its peer on the way to b: b itself where one of the two can be
// dialled, or an exposed gateway that relays between them; nil where no way leads there. It is symmetric in a and b as
// far as the relay goes, since both ends compute it from the same names.
func (m *model) via(a, b *region) *region {
	switch {
	case a.active == nil || b.active == nil || !b.end.usable:
		return nil
	case a.end.dialable() || b.end.dialable():
		return b
	default:
		return m.hub(a, b)
	}
}

// hub chooses the relay of a pair by rendezvous hashing over the unordered pair of names and the hub's: a pair moves
// only when its own hub goes, or when a new hub takes it, and each new hub takes its share. Hubs whose address both
// gateways have the family for come first: a node can dial IPv6 although its Node object shows no such address, but
// not surely.
func (m *model) hub(a, b *region) *region {
	low, high := a.name, b.name
	if low > high {
		low, high = high, low
	}
	pair := hashString(hashString(fnvOffset, low), high)
	var best *region
	var bestScore uint64
	bestReachable := false
	for _, h := range m.hubs {
		reachable := a.active.canDial(h) && b.active.canDial(h)
		score := mix(hashString(pair, h.name))
		switch {
		case best == nil, reachable && !bestReachable, reachable == bestReachable && score > bestScore:
			best, bestScore, bestReachable = h, score, reachable
		}
	}
	return best
}

func (n *node) canDial(r *region) bool {
	return n.hasFamily(hostPrefix(r.end.dial.Addr()))
}

// FNV-1a, 64 bits, with a zero byte after each string so that "a","bc" and "ab","c" differ.
const (
	fnvOffset uint64 = 14695981039346656037
	fnvPrime  uint64 = 1099511628211
)

func hashString(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return h * fnvPrime
}

// mix is the finalizer of MurmurHash3: FNV alone leaves names that differ in their last letter close together, and the
// highest score would go to the same hub for most pairs.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return h
}
