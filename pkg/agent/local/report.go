// Package local is the agent's interface for tools on its own node: HTTP with JSON over a UNIX socket that nobody but
// root may open. It only tells; nothing can be changed through it.
package local

import (
	"time"

	"github.com/ravencni/raven/pkg/agent/view"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/topology"
)

// Settings are what the agent was started with, as far as its tools have to know.
type Settings struct {
	Version        string    `json:"version"`
	Node           string    `json:"node"`
	StateDir       string    `json:"stateDir"`
	Started        time.Time `json:"started"`
	Acceleration   string    `json:"acceleration"` // auto or off
	LoosePodSource bool      `json:"loosePodSource,omitempty"`
}

// Report is all that the agent tells. It holds no secret.
type Report struct {
	Settings
	// At is the agent's clock.
	At time.Time `json:"at"`

	Region string        `json:"region"`
	Role   topology.Role `json:"role"`
	// Synced, Waiting, FromSnapshot and Held are as in view.View.
	Synced       bool   `json:"synced"`
	Waiting      string `json:"waiting,omitempty"`
	FromSnapshot bool   `json:"fromSnapshot"`
	Held         string `json:"held,omitempty"`
	Gateways     int    `json:"gateways"`
	Nodes        int    `json:"nodes"`
	Endpoints    int    `json:"endpoints"`

	Driver      string               `json:"driver"`
	PublicKey   string               `json:"publicKey,omitempty"`
	ListenPort  int                  `json:"listenPort,omitempty"`
	Datapath    v1beta1.DatapathMode `json:"datapath"`
	Why         string               `json:"datapathReason,omitempty"`
	UnderlayMTU int                  `json:"underlayMTU,omitempty"`

	Peers       []Peer            `json:"peers"`
	Appliers    []Applier         `json:"appliers"`
	Attachments []Attachment      `json:"attachments"`
	Counters    []Counter         `json:"counters"`
	Problems    []Problem         `json:"problems"`
	Elsewhere   int               `json:"problemsElsewhere"`
	Warnings    []string          `json:"warnings,omitempty"` // of the packet filter
	Passed      time.Time         `json:"passed"`
	Failed      map[string]string `json:"failed,omitempty"`
	// Refused is what the node's L7 proxy refused since it started.
	Refused []Refused `json:"proxyRefused,omitempty"`

	// PodsAccelerated and PodsNotAccelerated count local pods of an accelerated node.
	PodsAccelerated    int `json:"podsAccelerated"`
	PodsNotAccelerated int `json:"podsNotAccelerated"`

	// Plan is the last one that was applied; nil: none was.
	Plan *topology.Plan `json:"plan"`
	Host datapath.Host  `json:"host"`
}

// Peer is the gateway of another region.
type Peer struct {
	Node    string   `json:"node"`
	Region  string   `json:"region"`
	Relays  []string `json:"relays,omitempty"`
	State   string   `json:"state"`
	Message string   `json:"message,omitempty"`
	// Endpoint is where its packets come from; empty where unknown.
	Endpoint string `json:"endpoint,omitempty"`
	// HandshakeAge, in seconds, is nil where there was none.
	HandshakeAge *float64 `json:"handshakeAgeSeconds,omitempty"`
	// RTT in seconds, and Loss as a ratio from 0 to 1, are nil where they were not measured.
	RTT  *float64 `json:"rttSeconds,omitempty"`
	Loss *float64 `json:"lossRatio,omitempty"`
	// MTU in bytes of an inner packet.
	MTU     int    `json:"mtu"`
	RxBytes uint64 `json:"receivedBytes"`
	TxBytes uint64 `json:"sentBytes"`
}

// Applier is one part of the agent.
type Applier struct {
	Name    string `json:"name"`
	Runs    uint64 `json:"runs"`
	Errors  uint64 `json:"errors"`
	Changes uint64 `json:"changes"`
}

// Attachment is a place where a program runs, or would but for Reason.
type Attachment struct {
	Program string `json:"program"`
	Device  string `json:"device"`
	Kind    string `json:"kind"`
	Reason  string `json:"reason,omitempty"`
}

// Counter counts packets that a program, or nft, let go of.
type Counter struct {
	Where   string `json:"where"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Problem is an input that was left out, or something that does not work.
type Problem struct {
	Object  string `json:"object"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Refused are connections and requests that one front end of the L7 proxy refused for one reason, as docs/proxy.md names it.
type Refused struct {
	Front  string    `json:"front"`
	Reason string    `json:"reason"`
	Count  uint64    `json:"count"`
	Last   time.Time `json:"last"`
}

// fill takes over what the view knows.
func (r *Report) fill(v *view.View) {
	r.Synced, r.Waiting, r.FromSnapshot, r.Held = v.Synced, v.Waiting, v.FromSnapshot, v.Held
	r.Gateways, r.Nodes, r.Endpoints = v.Gateways, v.Nodes, v.Endpoints
	r.Driver, r.PublicKey, r.ListenPort = v.Driver, v.PublicKey, v.ListenPort
	r.Datapath, r.Why, r.UnderlayMTU = v.Datapath, v.DatapathReason, v.UnderlayMTU
	r.Elsewhere, r.Passed, r.Failed = v.Elsewhere, v.Passed, v.Failed
	r.PodsAccelerated, r.PodsNotAccelerated = v.PodsAccelerated, v.PodsNotAccelerated
	r.Plan, r.Host, r.Role = v.Plan, v.Host, topology.RoleNone
	for _, p := range v.Problems {
		r.Problems = append(r.Problems, Problem(p))
	}
	if v.Plan == nil {
		return
	}
	r.Region, r.Role = v.Plan.Region, v.Plan.Role
	planned := map[string]topology.Peer{}
	mtu := 0
	if v.Plan.Tunnel != nil {
		mtu = v.Plan.Tunnel.MTU
		for _, p := range v.Plan.Tunnel.Peers {
			planned[p.Node] = p
		}
	}
	for _, s := range v.Peers {
		p := Peer{
			Node: s.Node, Region: planned[s.Node].Region, Relays: planned[s.Node].Relays, State: string(s.State),
			Message: s.Message, MTU: mtu, RxBytes: s.RxBytes, TxBytes: s.TxBytes,
		}
		if s.Endpoint.IsValid() {
			p.Endpoint = s.Endpoint.String()
		}
		if !s.LastHandshake.IsZero() {
			p.HandshakeAge = new(r.At.Sub(s.LastHandshake).Seconds())
		}
		r.Peers = append(r.Peers, p)
	}
}
