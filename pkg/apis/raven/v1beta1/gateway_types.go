package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Names and defaults that users of Raven rely on; docs/contract.md lists them with their meaning.
const (
	// LabelGateway on a Node names the Gateway that the node belongs to.
	LabelGateway = "raven.openyurt.io/gateway"
	// AnnotationExtraSourceCIDRs on a Gateway holds a comma list of prefixes that are added to the subnets of the
	// active tunnel node.
	AnnotationExtraSourceCIDRs = "raven.openyurt.io/extra-allowed-source-cidrs"

	// DefaultTunnelPort is the UDP port of a tunnel endpoint whose port is absent.
	DefaultTunnelPort = 4500
	// DefaultProxyPort is the TCP port of a proxy endpoint whose port is absent.
	DefaultProxyPort = 10262

	// ConfigEnableTunnel is the key in an active endpoint's config that says whether L3 is on ("true" or "false").
	ConfigEnableTunnel = "enable-l3-tunnel"
	// ConfigEnableProxy is the key in an active endpoint's config that says whether L7 is on ("true" or "false").
	ConfigEnableProxy = "enable-l7-proxy"
	// ConfigPublicKey is the key in an active tunnel endpoint's config that holds its WireGuard public key (base64).
	ConfigPublicKey = "publicKey"
)

// EndpointType says what an endpoint serves.
// +kubebuilder:validation:Enum=proxy;tunnel
type EndpointType string

const (
	// EndpointTunnel endpoints hold encrypted L3 tunnels.
	EndpointTunnel EndpointType = "tunnel"
	// EndpointProxy endpoints carry HTTP and HTTPS by node name.
	EndpointProxy EndpointType = "proxy"
)

// ExposeType says how a gateway is reached from other regions; empty means that it is not.
// +kubebuilder:validation:Enum="";PublicIP;LoadBalancer
type ExposeType string

const (
	// ExposeNone gateways only dial out.
	ExposeNone ExposeType = ""
	// ExposePublicIP gateways are dialled at the publicIP of their endpoints.
	ExposePublicIP ExposeType = "PublicIP"
	// ExposeLoadBalancer gateways are dialled at the address of a LoadBalancer Service.
	ExposeLoadBalancer ExposeType = "LoadBalancer"
)

// Endpoint is a node that may serve as a gateway of its region, for one type.
type Endpoint struct {
	// NodeName is the name of the Node object.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	NodeName string `json:"nodeName"`
	// Type is proxy or tunnel; absent means tunnel.
	// +kubebuilder:default=tunnel
	// +optional
	Type EndpointType `json:"type,omitempty"`
	// Port is the port that the endpoint listens on; absent (0) means 10262/TCP for proxy and 4500/UDP for tunnel.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +optional
	Port int `json:"port,omitempty"`
	// UnderNAT says that the node reaches other regions through a NAT, so that it must dial out. It is the same for all
	// endpoints of a gateway, and false where exposeType is set.
	// +optional
	UnderNAT bool `json:"underNAT,omitempty"`
	// NATType is accepted for older manifests and has no effect.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	NATType string `json:"natType,omitempty"`
	// PublicIP is the IPv4 or IPv6 address that other regions dial. Under a NAT it may be absent: the endpoint dials out.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	PublicIP string `json:"publicIP,omitempty"`
	// PublicPort is the port that other regions dial; absent (0) means Port.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +optional
	PublicPort int `json:"publicPort,omitempty"`
	// Config holds free settings; in status: enable-l3-tunnel, enable-l7-proxy, publicKey.
	// +optional
	Config map[string]string `json:"config,omitempty"`
}

// EffectiveType is Type, or tunnel where it is absent.
func (e *Endpoint) EffectiveType() EndpointType {
	if e.Type == "" {
		return EndpointTunnel
	}
	return e.Type
}

// EffectivePort is Port, or the default of the endpoint's type where it is absent.
func (e *Endpoint) EffectivePort() int {
	switch {
	case e.Port != 0:
		return e.Port
	case e.EffectiveType() == EndpointProxy:
		return DefaultProxyPort
	default:
		return DefaultTunnelPort
	}
}

// EffectivePublicPort is PublicPort, or EffectivePort where it is absent.
func (e *Endpoint) EffectivePublicPort() int {
	if e.PublicPort != 0 {
		return e.PublicPort
	}
	return e.EffectivePort()
}

// ProxyConfiguration sets up the L7 proxy of a gateway. The capital R in Replicas is the name users write.
type ProxyConfiguration struct {
	// Replicas is the number of active proxy endpoints; 0 switches the proxy off for this gateway. More than 1 needs
	// that many endpoints of type proxy.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:default=1
	// +optional
	Replicas *int `json:"Replicas,omitempty"`
	// ProxyHTTPPort is a comma list of the ports, 1 to 65535, that carry plain HTTP to nodes, such as "10255,9445".
	// Blanks around a port are ignored, a port named twice counts once; empty means none.
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="size(self.trim()) == 0 || self.split(',').all(p, p.trim().matches('^[1-9][0-9]{0,4}$') && int(p.trim()) <= 65535)",message="proxyHTTPPort is a comma list of ports from 1 to 65535, such as \"10255,9445\""
	// +optional
	ProxyHTTPPort string `json:"proxyHTTPPort,omitempty"`
	// ProxyHTTPSPort is a comma list of the ports, 1 to 65535, that carry TLS to nodes, such as "10250,9100". Blanks
	// around a port are ignored, a port named twice counts once; empty means none.
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="size(self.trim()) == 0 || self.split(',').all(p, p.trim().matches('^[1-9][0-9]{0,4}$') && int(p.trim()) <= 65535)",message="proxyHTTPSPort is a comma list of ports from 1 to 65535, such as \"10250,9100\""
	// +optional
	ProxyHTTPSPort string `json:"proxyHTTPSPort,omitempty"`
}

// TunnelConfiguration sets up the L3 tunnel of a gateway.
type TunnelConfiguration struct {
	// Replicas is the number of active tunnel endpoints: 1, or 0 to switch L3 off for this gateway.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:XValidation:rule="self <= 1",message="several active tunnel endpoints in one gateway are not built yet: set tunnelConfig.Replicas to 1, or to 0 for no tunnel"
	// +kubebuilder:default=1
	// +optional
	Replicas *int `json:"Replicas,omitempty"`
}

// The rules on endpoints stand in GatewaySpec and not on Endpoint, since status holds Endpoints too and must never be
// refused for what spec says. They use only what Kubernetes 1.30 offers to new CEL rules; isIP is not among it. See
// docs/design/api-validation.md.

// GatewaySpec says which nodes form a region and which of them may serve as its gateway.
//
// +kubebuilder:validation:XValidation:rule="!has(self.exposeType) || size(self.exposeType) == 0 || !has(self.endpoints) || self.endpoints.all(e, !has(e.underNAT) || !e.underNAT)",fieldPath=".endpoints",message="other regions dial an exposed gateway, so none of its endpoints may be behind a NAT: set underNAT to false on every endpoint, or remove exposeType"
// +kubebuilder:validation:XValidation:rule="!has(self.proxyConfig) || !has(self.proxyConfig.Replicas) || self.proxyConfig.Replicas <= 1 || (has(self.endpoints) && self.endpoints.filter(e, e.type == 'proxy').size() >= self.proxyConfig.Replicas)",fieldPath=".proxyConfig.Replicas",message="more than one proxy replica needs that many endpoints of type proxy: add endpoints or lower proxyConfig.Replicas"
type GatewaySpec struct {
	// NodeSelector chooses the member nodes; absent: the label raven.openyurt.io/gateway=<name of this Gateway>.
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
	// ProxyConfig sets up the L7 proxy; absent means one replica.
	// +kubebuilder:default={}
	// +optional
	ProxyConfig *ProxyConfiguration `json:"proxyConfig,omitempty"`
	// TunnelConfig sets up the L3 tunnel; absent means one replica.
	// +kubebuilder:default={}
	// +optional
	TunnelConfig *TunnelConfiguration `json:"tunnelConfig,omitempty"`
	// Endpoints are the candidates in order of preference. A node stands here at most once for each type.
	// +listType=map
	// +listMapKey=nodeName
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:XValidation:rule="self.filter(e, has(e.underNAT) && e.underNAT).size() in [0, self.size()]",message="underNAT must be the same on every endpoint of one gateway: set it to true on all of them, or to false on all of them"
	// +kubebuilder:validation:items:XValidation:rule="!has(self.publicIP) || size(self.publicIP) == 0 || self.publicIP.matches('^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])[.]){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])$') || (self.publicIP.split(':').filter(g, size(g) > 0).size() <= (self.publicIP.contains('::') ? 7 : 8) && self.publicIP.matches('^(([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|(([0-9a-fA-F]{1,4}:)*[0-9a-fA-F]{1,4})?::(([0-9a-fA-F]{1,4}:)*[0-9a-fA-F]{1,4})?)$'))",fieldPath=".publicIP",message="publicIP must be an IPv4 address such as 203.0.113.7 or an IPv6 address such as 2001:db8::7, without prefix length, port or brackets"
	// +optional
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	// ExposeType says how other regions reach this gateway.
	// +optional
	ExposeType ExposeType `json:"exposeType,omitempty"`
}

// NodeInfo is one member node of a region.
type NodeInfo struct {
	NodeName string `json:"nodeName"`
	// PrivateIP is the node's InternalIP, of the family that other nodes of the region use to reach it.
	PrivateIP string `json:"privateIP"`
	// Subnets are the node's pod prefixes in CIDR notation, of both families.
	// +optional
	Subnets []string `json:"subnets,omitempty"`
}

// GatewayStatus is what the controller found and decided.
type GatewayStatus struct {
	// ActiveEndpoints are the elected endpoints, sorted by nodeName and type.
	// +optional
	ActiveEndpoints []*Endpoint `json:"activeEndpoints,omitempty"`
	// ActiveEndpoint is the elected tunnel endpoint, as readers of v1alpha1 expect it.
	// +optional
	ActiveEndpoint *Endpoint `json:"activeEndpoint,omitempty"`
	// Nodes are all member nodes, ready or not, sorted by nodeName.
	// +optional
	Nodes []NodeInfo `json:"nodes,omitempty"`
	// NodeCount is the number of nodes; printer columns cannot count.
	// +optional
	NodeCount int `json:"nodeCount,omitempty"`
	// ObservedGeneration is the generation of spec that this status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Conditions explain the state: Ready, TunnelElected, ProxyElected, CIDRConflict.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Gateway is a region: the nodes of one closed network and the endpoints that join it to the other regions.
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=gw
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:printcolumn:name="Exposed",type=string,JSONPath=`.spec.exposeType`,description="How other regions reach this gateway; empty: it dials out"
// +kubebuilder:printcolumn:name="Tunnel node",type=string,JSONPath=`.status.activeEndpoint.nodeName`,description="The active tunnel endpoint"
// +kubebuilder:printcolumn:name="Public IP",type=string,JSONPath=`.status.activeEndpoint.publicIP`,priority=1,description="The address at which the active tunnel endpoint is seen"
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodeCount`,description="Member nodes, ready or not"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Gateway struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   GatewaySpec   `json:"spec,omitempty"`
	Status GatewayStatus `json:"status,omitempty"`
}

// GatewayList is a list of Gateways.
// +kubebuilder:object:root=true
type GatewayList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Gateway `json:"items"`
}
