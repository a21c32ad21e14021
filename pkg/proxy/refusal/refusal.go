// Package refusal says why the L7 proxy did not carry a request: to the client in words, to the metrics as one of a
// fixed set of reasons.
package refusal

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Reason is one of the constants below: it is a metric's label.
type Reason string

const (
	// UnknownNode: no node of the cluster has that name.
	UnknownNode Reason = "unknown-node"
	// NoRegion: the node is in no region, so that no gateway leads to it.
	NoRegion Reason = "no-region"
	// OtherRegion: an edge was asked for a node that is not of its own region.
	OtherRegion Reason = "other-region"
	// NoAddress: the node has no usable address.
	NoAddress Reason = "no-address"
	// PortNotAllowed: no Gateway lists the port.
	PortNotAllowed Reason = "port-not-allowed"
	// AmbiguousAddress: nodes of two regions have the address, so only a name tells them apart.
	AmbiguousAddress Reason = "ambiguous-address"
	// BadTarget: what was asked for is no host and port.
	BadTarget Reason = "bad-target"
	// NoTunnel: no proxy of the node's gateway is connected.
	NoTunnel Reason = "no-tunnel"
	// TunnelLost: the tunnel ended before the node was reached.
	TunnelLost Reason = "tunnel-lost"
	// DialRefused: the node refused the connection.
	DialRefused Reason = "dial-refused"
	// DialTimeout: the node did not answer in time.
	DialTimeout Reason = "dial-timeout"
	// DialFailed: the node could not be reached for another reason.
	DialFailed Reason = "dial-failed"
	// Busy: a limit on connections or streams is reached.
	Busy Reason = "busy"
	// SourceNotAllowed: the client's address is not among the allowed sources.
	SourceNotAllowed Reason = "source-not-allowed"
	// NoServerName: a TLS client named no server, so that there is nothing to route by.
	NoServerName Reason = "no-server-name"
	// BadClientHello: the first bytes are no ClientHello.
	BadClientHello Reason = "bad-client-hello"
	// BadRequest: the request is no HTTP that the proxy takes.
	BadRequest Reason = "bad-request"
	// Slow: the client did not say in time what it wants.
	Slow Reason = "slow-client"
	// NotAuthenticated: no certificate, or one of another signer.
	NotAuthenticated Reason = "not-authenticated"
	// WrongIdentity: a certificate of the right signer, for something else.
	WrongIdentity Reason = "wrong-identity"
	// NotActive: the node is no active proxy of its gateway.
	NotActive Reason = "not-active"
	// Off: the proxy is switched off.
	Off Reason = "off"
	// Other: a reason that this version does not know, from a peer that is newer.
	Other Reason = "other"
)

var status = map[Reason]int{
	UnknownNode: http.StatusNotFound, NoRegion: http.StatusNotFound, OtherRegion: http.StatusForbidden,
	NoAddress: http.StatusBadGateway, PortNotAllowed: http.StatusForbidden, AmbiguousAddress: http.StatusMisdirectedRequest,
	BadTarget: http.StatusBadRequest, NoTunnel: http.StatusServiceUnavailable, TunnelLost: http.StatusBadGateway,
	DialRefused: http.StatusBadGateway, DialTimeout: http.StatusGatewayTimeout, DialFailed: http.StatusBadGateway,
	Busy: http.StatusServiceUnavailable, SourceNotAllowed: http.StatusForbidden, NoServerName: http.StatusBadRequest,
	BadClientHello: http.StatusBadRequest, BadRequest: http.StatusBadRequest, Slow: http.StatusRequestTimeout,
	NotAuthenticated: http.StatusUnauthorized, WrongIdentity: http.StatusForbidden, NotActive: http.StatusForbidden,
	Off: http.StatusServiceUnavailable, Other: http.StatusBadGateway,
}

// Reasons lists all of them, sorted.
func Reasons() []Reason {
	out := make([]Reason, 0, len(status))
	for r := range status {
		out = append(out, r)
	}
	slices.Sort(out)
	return out
}

// Known is the reason of that name, or Other.
func Known(name string) Reason {
	if r := Reason(name); status[r] != 0 {
		return r
	}
	return Other
}

// Error is a refusal.
type Error struct {
	Reason Reason
	// Gateway is the node's region; empty where it is not known.
	Gateway string
	// Node is what was asked for; empty where nothing was.
	Node string
	// Detail says more; may be empty.
	Detail string
}

// New makes a refusal of a request for a node; gateway and node may be empty.
func New(reason Reason, gateway, node, format string, args ...any) *Error {
	return &Error{Reason: reason, Gateway: gateway, Node: node, Detail: fmt.Sprintf(format, args...)}
}

// Error names gateway, node and reason, as the client sees it.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("raven proxy: ")
	if e.Node != "" {
		fmt.Fprintf(&b, "node %s", e.Node)
		if e.Gateway != "" {
			fmt.Fprintf(&b, " of gateway %s", e.Gateway)
		}
		b.WriteString(": ")
	} else if e.Gateway != "" {
		fmt.Fprintf(&b, "gateway %s: ", e.Gateway)
	}
	b.WriteString(string(e.Reason))
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	return b.String()
}

// Status is the HTTP status code for it.
func (e *Error) Status() int {
	if s := status[e.Reason]; s != 0 {
		return s
	}
	return http.StatusBadGateway
}

// Of finds the refusal in an error; one without counts as Other.
func Of(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Reason: Other, Detail: err.Error()}
}

// Headers that tell a program what the text tells a person.
const (
	HeaderReason  = "Raven-Reason"
	HeaderGateway = "Raven-Gateway"
)

// Write answers a request with the refusal.
func Write(w http.ResponseWriter, e *Error) {
	w.Header().Set(HeaderReason, string(e.Reason))
	if e.Gateway != "" {
		w.Header().Set(HeaderGateway, e.Gateway)
	}
	if e.Reason == NoTunnel || e.Reason == TunnelLost || e.Reason == Busy {
		w.Header().Set("Retry-After", "1")
	}
	http.Error(w, e.Error(), e.Status())
}
