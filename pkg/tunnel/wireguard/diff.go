package wireguard

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// rejectAfterTime is how long a session lives without a new handshake: REJECT_AFTER_TIME of the WireGuard paper
// (Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel", section 6.1).
const rejectAfterTime = 180 * time.Second

// diff is what must be written to bring a device to plan.
type diff struct {
	config wgtypes.Config
	// nudge, written after config, makes the device shake hands with all its peers by its new key.
	nudge wgtypes.Config
	// quiet, written last, ends the keepalives that were started for the sake of the first one.
	quiet wgtypes.Config
	// changes counts the objects that config touches: the device itself, and each peer.
	changes int
	// names of the peers in config, for errors.
	names map[wgtypes.Key]string
}

func (d diff) empty() bool { return d.changes == 0 }

// compare computes the diff between a device and what it should hold. Only what differs is in it, so that the sessions
// of the other peers, and of a peer that gains or loses a prefix, go on. scratch is a public key that nobody has.
//
// The order matters. An allowed IP belongs to one peer, and adding it to another moves it at once, so peers gain
// prefixes first; a failover leaves no moment without a peer. A prefix that nobody is to have any more is moved to the
// scratch peer, which then goes: removing it by replacing its peer's list would leave the peer's other prefixes
// homeless meanwhile.
func compare(
	have *wgtypes.Device, key wgtypes.Key, port int, want []peer, memory endpoints, scratch wgtypes.Key, now time.Time,
) diff {
	d := diff{names: map[wgtypes.Key]string{scratch: "the scratch peer"}}
	if have.PrivateKey != key {
		d.config.PrivateKey = &key
	}
	if port != 0 && have.ListenPort != port {
		d.config.ListenPort = &port
	}
	if d.config.PrivateKey != nil || d.config.ListenPort != nil {
		d.changes++
	}

	old := make(map[wgtypes.Key]*wgtypes.Peer, len(have.Peers))
	for i := range have.Peers {
		old[have.Peers[i].PublicKey] = &have.Peers[i]
	}
	wanted := make(map[wgtypes.Key]bool, len(want))
	owner := make(map[netip.Prefix]wgtypes.Key)
	for _, p := range want {
		wanted[p.key] = true
		for _, prefix := range p.prefixes {
			owner[prefix] = p.key
		}
	}

	touched := map[wgtypes.Key]bool{}
	rekeyed := d.config.PrivateKey != nil && have.PrivateKey != (wgtypes.Key{})
	for _, p := range want {
		d.names[p.key] = p.String()
		config, needed := comparePeer(old[p.key], p, memory, now)
		if rekeyed && old[p.key] != nil {
			needed = d.introduce(old[p.key], p, &config) || needed
		}
		if needed {
			touched[p.key] = true
			if old[p.key] == nil && config.Endpoint != nil && p.keepalive == 0 {
				// Shake hands now and not with the first packet: after a restart of this device the peer still holds the
				// old session and would send into the void for a while. Switching keepalives on sends one at once.
				config.PersistentKeepaliveInterval = new(time.Second)
				d.quiet.Peers = append(d.quiet.Peers, wgtypes.PeerConfig{
					PublicKey: p.key, UpdateOnly: true, PersistentKeepaliveInterval: new(time.Duration),
				})
			}
			d.config.Peers = append(d.config.Peers, config)
		}
	}
	var surplus []net.IPNet
	var gone []wgtypes.PeerConfig
	for _, h := range have.Peers {
		if !wanted[h.PublicKey] {
			d.names[h.PublicKey] = "that the plan no longer has, key " + h.PublicKey.String()
			gone = append(gone, wgtypes.PeerConfig{PublicKey: h.PublicKey, Remove: true})
			touched[h.PublicKey] = true
			continue
		}
		for _, ipnet := range h.AllowedIPs {
			if _, owned := owner[prefixOf(ipnet)]; !owned {
				surplus = append(surplus, ipnet)
				touched[h.PublicKey] = true
			}
		}
	}
	if len(surplus) > 0 {
		d.config.Peers = append(d.config.Peers,
			wgtypes.PeerConfig{PublicKey: scratch, AllowedIPs: surplus},
			wgtypes.PeerConfig{PublicKey: scratch, Remove: true})
	}
	d.config.Peers = append(d.config.Peers, gone...)
	d.changes += len(touched)
	return d
}

// introduce has the device shake hands at once with a peer that it knows, by its new key: the old sessions have ended for
// that peer. A keepalive goes out when keepalives are switched on, so they are switched off before. It reports whether
// there is anything to write to config.
func (d *diff) introduce(have *wgtypes.Peer, want peer, config *wgtypes.PeerConfig) bool {
	if have.Endpoint == nil && config.Endpoint == nil {
		return false // it dials us, and nobody knows from where
	}
	off := time.Duration(0)
	config.PersistentKeepaliveInterval = &off
	every := want.keepalive
	if every == 0 {
		every = time.Second
		d.quiet.Peers = append(d.quiet.Peers, wgtypes.PeerConfig{
			PublicKey: want.key, UpdateOnly: true, PersistentKeepaliveInterval: &off,
		})
	}
	d.nudge.Peers = append(d.nudge.Peers, wgtypes.PeerConfig{
		PublicKey: want.key, UpdateOnly: true, PersistentKeepaliveInterval: &every,
	})
	return true
}

// comparePeer returns what must be written to bring one peer to plan; have is nil where the device does not know it.
func comparePeer(have *wgtypes.Peer, want peer, memory endpoints, now time.Time) (config wgtypes.PeerConfig, needed bool) {
	config.PublicKey = want.key
	if have == nil {
		needed = true
		have = &wgtypes.Peer{}
	}
	if endpoint := endpointToWrite(have, want, memory.of(want.key), now); endpoint.IsValid() {
		config.Endpoint = net.UDPAddrFromAddrPort(endpoint)
		needed = true
	}
	if have.PersistentKeepaliveInterval != want.keepalive {
		config.PersistentKeepaliveInterval = &want.keepalive
		needed = true
	}
	has := make(map[netip.Prefix]bool, len(have.AllowedIPs))
	for _, ipnet := range have.AllowedIPs {
		has[prefixOf(ipnet)] = true
	}
	for _, prefix := range want.prefixes {
		if !has[prefix] {
			config.AllowedIPs = append(config.AllowedIPs, ipNetOf(prefix))
			needed = true
		}
	}
	return config, needed
}

// endpointToWrite returns the endpoint to write to a peer, invalid where it should keep what it has. The endpoint that
// the device shows is the one the peer's last authentic packet came from, and may differ from the planned one with good
// reason (another uplink, a NAT): the plan overrules it only where it has changed since the last write, or where the
// device has had no handshake for as long as a session lives.
func endpointToWrite(have *wgtypes.Peer, want peer, last *memory, now time.Time) (none netip.AddrPort) {
	switch {
	case !want.endpoint.IsValid() && have.Endpoint == nil && last != nil:
		// The peer dials us, and has done so before this device was made anew: its NAT may still let us in, which is
		// faster than waiting for the peer to notice.
		return last.Learned
	case !want.endpoint.IsValid():
		return none // whatever the device has learned is right
	case have.Endpoint == nil:
		return want.endpoint
	case unmapped(have.Endpoint.AddrPort()) == want.endpoint:
		return none
	case last != nil && last.Planned != want.endpoint:
		return want.endpoint
	case now.Sub(have.LastHandshakeTime) > rejectAfterTime:
		return want.endpoint
	}
	return none
}

func prefixOf(n net.IPNet) netip.Prefix {
	ones, _ := n.Mask.Size()
	addr, _ := netip.AddrFromSlice(n.IP)
	return netip.PrefixFrom(addr.Unmap(), ones)
}

func ipNetOf(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// steps splits a configuration into steps that can be written, and fail, each alone, in the same order.
func steps(config wgtypes.Config) (each []wgtypes.Config) {
	if config.PrivateKey != nil || config.ListenPort != nil {
		each = append(each, wgtypes.Config{PrivateKey: config.PrivateKey, ListenPort: config.ListenPort})
	}
	for chunk := range slices.Chunk(config.Peers, 1) {
		each = append(each, wgtypes.Config{Peers: chunk})
	}
	return each
}
