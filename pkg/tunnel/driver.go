// Package tunnel defines what a tunnel driver is: the part that holds encrypted links to the gateways of other
// regions. The datapath knows a driver only by the devices that it reports.
package tunnel

import (
	"context"
	"net/netip"
	"time"

	"github.com/ravencni/raven/pkg/topology"
)

// Device is a network device that carries IP packets to peers.
type Device struct {
	Name  string
	Index int
	// Ethernet is true where the device carries Ethernet frames (the plain driver's VXLAN) and false where it takes
	// bare IP packets (WireGuard, XFRM interface, TUN).
	Ethernet bool
	// MTU in bytes, of the inner IP packet.
	MTU int
	// Peer is the node at the other end where the device leads to one peer only; empty where it finds the peer by itself.
	Peer string
	// Decrypts is true where the kernel decrypts what comes out of the device by XFRM, and remembers that with the packet.
	Decrypts bool
	// VXLAN is set where the device is a VXLAN one over IPv4 whose peers send from the endpoints that the plan gives them; the
	// programs may then take the encapsulation off before the stack does.
	VXLAN VXLAN
}

// VXLAN says what is sent to a VXLAN device: packets of which network identifier (24 bits; 0 says that the device is none), to
// which address of this node.
type VXLAN struct {
	VNI     uint32
	Address netip.Addr
}

// State of one tunnel.
type State string

const (
	// StateUp: a handshake is fresh.
	StateUp State = "up"
	// StateConnecting: no handshake yet, or none fresh.
	StateConnecting State = "connecting"
	// StateDown: the driver cannot reach the peer and knows why.
	StateDown State = "down"
)

// PeerStatus is a driver's word about one peer.
type PeerStatus struct {
	// Node is the peer's node name.
	Node  string
	State State
	// Message says why State is not up.
	Message string
	// Endpoint is where the peer's packets come from; invalid where unknown.
	Endpoint netip.AddrPort
	// LastHandshake is zero where there was none.
	LastHandshake    time.Time
	RxBytes, TxBytes uint64
}

// Result says what an Apply did.
type Result struct {
	// Device is the zero value where the plan wants no tunnel on this node, and where there is none. An Apply that fails
	// reports the device that stands, so that nobody takes routes and filters away from under running tunnels.
	Device Device
	// PerPeer are the devices, sorted by name, of a driver that has one for each peer; Device is then the zero value.
	PerPeer []Device
	// Changes counts writes to the kernel or to the driver's process; 0 where all was as planned.
	Changes int
}

// Driver brings tunnels to the planned state. All methods are idempotent, take the network namespace of the calling
// thread, and must be called from one goroutine at a time.
type Driver interface {
	// Name is wireguard, ipsec or plain.
	Name() string
	// PublicKey returns the node's public key, making the private key on first use. It never rotates a key. It is empty
	// where the driver's ends prove themselves otherwise, such as by a secret that they share.
	PublicKey(ctx context.Context) (string, error)
	// Apply makes the device and its peers what plan says; a plan without a tunnel removes what the driver owns.
	// One bad peer costs only itself: Apply goes on with the others and returns the joined errors.
	Apply(ctx context.Context, plan *topology.Plan) (Result, error)
	// Status reports the peers, sorted by node.
	Status(ctx context.Context) ([]PeerStatus, error)
	// Cleanup removes device, process and peers; keys stay on disk.
	Cleanup(ctx context.Context) error
}

// KeyRotator is a driver whose key can be changed on request, in two steps: the peers learn the next key, then the device
// takes it. Both steps survive a restart in between.
type KeyRotator interface {
	// NextKey returns the public half of the key that request asks for, made on the first call; empty where the key was
	// changed for that request before. request is any text that differs from that of the request before.
	NextKey(ctx context.Context, request string) (string, error)
	// SwitchKey puts the next key in the present one's place; the next Apply brings it to the device.
	SwitchKey(ctx context.Context) error
}
