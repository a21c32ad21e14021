package topology

import "github.com/ravencni/raven/pkg/apis/raven/v1beta1"

// SecondTunnelPort is where a driver listens that a region switches to, while the one before it still has the main port.
const SecondTunnelPort = 51820

// PortChoice says which of its two UDP ports a gateway's driver listens on.
type PortChoice int

const (
	// PortKept is the one that this node has published, so that a restart moves nothing; a node that has not gets the main
	// one.
	PortKept PortChoice = iota
	// PortMain is the endpoint's port, or the configured one.
	PortMain
	// PortSecond is the other one.
	PortSecond
)

// secondPort is the other one of a gateway's two ports.
func secondPort(main uint16) uint16 {
	if main == SecondTunnelPort {
		return v1beta1.DefaultTunnelPort
	}
	return SecondTunnelPort
}

// published is what a node says of its end of the configured driver; zero where it says nothing.
func (m *model) published(node string) v1beta1.TunnelPort {
	if te := m.endpoints[node]; te != nil {
		for _, t := range te.Status.Tunnels {
			if t.Driver == m.config.Driver {
				return t
			}
		}
	}
	return v1beta1.TunnelPort{}
}

// listenPort is where this gateway's driver listens.
func (p *projection) listenPort() (port int, second bool) {
	main := firstPort(p.home.end.endpoint.Port, p.config.TunnelPort)
	switch p.local.Port {
	case PortSecond:
		second = true
	case PortKept:
		second = p.published(p.self.name).Second
	}
	if second {
		return int(secondPort(main)), true
	}
	return int(main), false
}
