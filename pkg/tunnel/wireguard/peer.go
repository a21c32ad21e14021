package wireguard

import (
	"crypto/ecdh"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/ravencni/raven/pkg/topology"
)

// peer is a planned peer in WireGuard's terms.
type peer struct {
	region, node string
	key          wgtypes.Key
	// endpoint is where to dial; invalid where the peer dials us.
	endpoint  netip.AddrPort
	keepalive time.Duration
	prefixes  []netip.Prefix
}

func (p peer) String() string { return nameOf(p.region, p.node) }

func nameOf(region, node string) string { return fmt.Sprintf("region %s (node %s)", region, node) }

// refusal is a planned peer that the device cannot hold, and why.
type refusal struct {
	region, node string
	err          error
}

// wantedPeers translates the plan's peers. What is wrong with a peer costs only that peer, or only the item of it, and
// is among the errors by region and node; refused lists the peers that cannot exist at all.
func wantedPeers(planned []topology.Peer, own wgtypes.Key) (wanted []peer, refused []refusal, errs []error) {
	ownPublic := own.PublicKey()
	byKey := make(map[wgtypes.Key]string, len(planned))
	byPrefix := make(map[netip.Prefix]string)
	for _, pl := range planned {
		name := nameOf(pl.Region, pl.Node)
		key, err := parsePublicKey(pl.PublicKey)
		switch {
		case err != nil:
		case key == ownPublic:
			err = errors.New("it has this node's own public key; give each node a state folder of its own")
		case byKey[key] != "":
			err = fmt.Errorf("it has the same public key as %s; give each node a state folder of its own", byKey[key])
		}
		if err != nil {
			err = fmt.Errorf("peer %s is left out: %w", name, err)
			refused = append(refused, refusal{pl.Region, pl.Node, err})
			errs = append(errs, err)
			continue
		}
		byKey[key] = name
		p := peer{region: pl.Region, node: pl.Node, key: key}
		if pl.Endpoint.IsValid() {
			if err := checkEndpoint(pl.Endpoint); err != nil {
				errs = append(errs, fmt.Errorf("peer %s is not dialled: %w", name, err))
			} else {
				p.endpoint = unmapped(pl.Endpoint)
			}
		}
		if pl.KeepaliveSeconds < 0 || pl.KeepaliveSeconds > maxKeepaliveSeconds {
			errs = append(errs, fmt.Errorf("peer %s gets no keepalive: %d seconds is not between 0 and %d",
				name, pl.KeepaliveSeconds, maxKeepaliveSeconds))
		} else {
			p.keepalive = time.Duration(pl.KeepaliveSeconds) * time.Second
		}
		for _, prefix := range pl.Prefixes {
			prefix = prefix.Masked()
			switch other := byPrefix[prefix]; {
			case !prefix.IsValid():
				errs = append(errs, fmt.Errorf("peer %s: an invalid prefix is left out", name))
			case other == name: // named twice
			case other != "":
				errs = append(errs, fmt.Errorf("peer %s: prefix %s is left out, since it goes to %s", name, prefix, other))
			default:
				byPrefix[prefix] = name
				p.prefixes = append(p.prefixes, prefix)
			}
		}
		wanted = append(wanted, p)
	}
	return wanted, refused, errs
}

// maxKeepaliveSeconds is what the protocol's 16-bit field holds.
const maxKeepaliveSeconds = 1<<16 - 1

func parsePublicKey(s string) (wgtypes.Key, error) {
	if s == "" {
		return wgtypes.Key{}, errors.New("it has published no public key yet")
	}
	key, err := wgtypes.ParseKey(s)
	if err != nil {
		return wgtypes.Key{}, fmt.Errorf("its public key %q is malformed: %w", s, err)
	}
	if weak(key) {
		return wgtypes.Key{}, fmt.Errorf("its public key %q is no point to agree on a secret with", s)
	}
	return key, nil
}

// weak tells whether key is one of Curve25519's points of small order, which make every shared secret zero; ECDH
// refuses them (RFC 7748, section 6.1).
func weak(key wgtypes.Key) bool {
	public, err := ecdh.X25519().NewPublicKey(key[:])
	if err != nil {
		return true
	}
	// Any private key shows it: each is a multiple of the curve's cofactor, hence of every small order.
	private, err := ecdh.X25519().NewPrivateKey(make([]byte, wgtypes.KeyLen))
	if err != nil {
		return true
	}
	_, err = private.ECDH(public)
	return err != nil
}

func checkEndpoint(ep netip.AddrPort) error {
	a := ep.Addr().Unmap()
	switch {
	case ep.Port() == 0:
		return fmt.Errorf("its endpoint %s has no port", ep)
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("its endpoint %s is not the address of a host", ep)
	}
	return nil
}

func unmapped(ep netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ep.Addr().Unmap(), ep.Port())
}
