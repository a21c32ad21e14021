package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AnnotationRotateKey on a TunnelEndpoint asks its agent to change the node's key, once for each new value. ravenctl
// rotate-key writes the time of the request.
const AnnotationRotateKey = "raven.openyurt.io/rotate-key"

// TunnelPort is one driver's end of the tunnels on a node.
type TunnelPort struct {
	// Driver is wireguard, ipsec or plain.
	// +kubebuilder:validation:MinLength=1
	Driver string `json:"driver"`
	// Port is the UDP port that the driver listens on.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +optional
	Port int `json:"port,omitempty"`
	// Second: the port is the gateway's second one, since another driver had the main port when this one came. It is dialled
	// as it is, whatever the Gateway says of ports.
	// +optional
	Second bool `json:"second,omitempty"`
	// PublicKey is the node's public key in the driver's own notation (WireGuard: base64 of 32 bytes).
	// +optional
	PublicKey string `json:"publicKey,omitempty"`
}

// ObservedAddress is where a peer's packets were seen to come from.
type ObservedAddress struct {
	// NodeName is the peer's node.
	NodeName string `json:"nodeName"`
	// Address is ip:port, or [ip]:port.
	Address string `json:"address"`
}

// PeerHealth is the compact state of one tunnel, written when it changes and not as a stream.
type PeerHealth struct {
	// NodeName is the peer's node.
	NodeName string `json:"nodeName"`
	// State is up, connecting or down.
	// +kubebuilder:validation:Enum=up;connecting;down
	State string `json:"state"`
	// Message says why the state is not up.
	// +optional
	Message string `json:"message,omitempty"`
}

// DatapathMode says how a node forwards.
type DatapathMode string

const (
	// DatapathAccelerated: eBPF programs redirect; the kernel's tables take what they pass on.
	DatapathAccelerated DatapathMode = "Accelerated"
	// DatapathBaseline: the kernel's tables forward everything.
	DatapathBaseline DatapathMode = "Baseline"
	// DatapathOff: the node is in no region, or L3 is off; Raven owns nothing in its kernel.
	DatapathOff DatapathMode = "Off"
)

// Problem is one input item that was left out, or one thing the node cannot do.
type Problem struct {
	// Object is kind/name, such as Gateway/gw-cloud or Node/edge-1.
	Object string `json:"object"`
	// Reason is a CamelCase word such as MalformedCIDR.
	Reason string `json:"reason"`
	// Message says what is wrong and what to do about it.
	Message string `json:"message"`
}

// TunnelEndpointStatus is what a node's agent says of itself.
type TunnelEndpointStatus struct {
	// Gateway is the region that the node believes to be in; empty: none.
	// +optional
	Gateway string `json:"gateway,omitempty"`
	// Tunnels lists the drivers that this node can terminate, with key and port. Its traffic goes by the first.
	// +listType=map
	// +listMapKey=driver
	// +optional
	Tunnels []TunnelPort `json:"tunnels,omitempty"`
	// Addresses are the node's own underlay addresses.
	// +optional
	Addresses []string `json:"addresses,omitempty"`
	// ObservedAddresses are where this node sees its NATed peers.
	// +optional
	ObservedAddresses []ObservedAddress `json:"observedAddresses,omitempty"`
	// UnderlayMTU is the MTU in bytes of the device that holds the node's address.
	// +optional
	UnderlayMTU int `json:"underlayMTU,omitempty"`
	// Datapath says how the node forwards.
	// +kubebuilder:validation:Enum=Accelerated;Baseline;Off
	// +optional
	Datapath DatapathMode `json:"datapath,omitempty"`
	// DatapathReason says why the mode is not Accelerated.
	// +optional
	DatapathReason string `json:"datapathReason,omitempty"`
	// KeyRequest is the value of the annotation raven.openyurt.io/rotate-key that was served last: this node has begun to
	// use the key that it publishes.
	// +optional
	KeyRequest string `json:"keyRequest,omitempty"`
	// PeersUp counts the tunnels that are up, of all that this node holds, such as 2/3; empty: it holds none.
	// +optional
	PeersUp string `json:"peersUp,omitempty"`
	// Peers is the health of this node's tunnels, sorted by nodeName.
	// +optional
	Peers []PeerHealth `json:"peers,omitempty"`
	// Problems are the inputs that this node left out, sorted by object and reason.
	// +optional
	Problems []Problem `json:"problems,omitempty"`
}

// TunnelEndpoint is a node's own word about its end of the tunnels; its name is the node's. Only that node's agent
// writes it.
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=te
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:printcolumn:name="Gateway",type=string,JSONPath=`.status.gateway`,description="The region that the node believes to be in"
// +kubebuilder:printcolumn:name="Datapath",type=string,JSONPath=`.status.datapath`,description="Accelerated (eBPF), Baseline (kernel tables) or Off"
// +kubebuilder:printcolumn:name="Peers up",type=string,JSONPath=`.status.peersUp`,description="Tunnels that are up, of all that the node holds; empty where it is no gateway"
// +kubebuilder:printcolumn:name="Why",type=string,JSONPath=`.status.datapathReason`,priority=1,description="Why the datapath is not accelerated"
// +kubebuilder:printcolumn:name="Driver",type=string,JSONPath=`.status.tunnels[0].driver`,description="The tunnel driver of this node"
// +kubebuilder:printcolumn:name="MTU",type=integer,JSONPath=`.status.underlayMTU`,priority=1,description="MTU of the device that holds the node's address"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type TunnelEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Status TunnelEndpointStatus `json:"status,omitempty"`
}

// TunnelEndpointList is a list of TunnelEndpoints.
// +kubebuilder:object:root=true
type TunnelEndpointList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TunnelEndpoint `json:"items"`
}
