package controller

// Namespace holds all of Raven's namespaced objects.
const Namespace = "kube-system"

// Name is the controller's own, in its Lease, its events and its user agent.
const Name = "raven-controller"

// ConfigMaps in Namespace.
const (
	// switchesName has enable-l3-tunnel and enable-l7-proxy.
	switchesName = "raven-cfg"
	// settingsName has the agents' settings.
	settingsName = "raven-agent-config"
	// dnsName has the hosts lines for a DNS server.
	dnsName = "edge-tunnel-nodes"
)
