package topology

// Reasons of Problems. They are stable: metrics and conditions carry them.
const (
	// ReasonUnknownDriver: the configured tunnel driver is none of Raven's.
	ReasonUnknownDriver = "UnknownDriver"
	// ReasonInvalidServiceCIDR: a configured service range is not a prefix, or is a default route.
	ReasonInvalidServiceCIDR = "InvalidServiceCIDR"

	// ReasonDuplicateObject: two objects of one kind have the same name, or one has none.
	ReasonDuplicateObject = "DuplicateObject"
	// ReasonNodeNotFound: the node that the Plan is for has no Node object.
	ReasonNodeNotFound = "NodeNotFound"
	// ReasonInvalidSelector: a Gateway's nodeSelector cannot be evaluated.
	ReasonInvalidSelector = "InvalidSelector"
	// ReasonNodeInTwoGateways: two Gateways select one node; the first by name has it.
	ReasonNodeInTwoGateways = "NodeInTwoGateways"

	// ReasonEndpointNodeNotFound: an endpoint of a Gateway names no Node.
	ReasonEndpointNodeNotFound = "EndpointNodeNotFound"
	// ReasonEndpointNotMember: an endpoint of a Gateway names a node outside the region.
	ReasonEndpointNotMember = "EndpointNotMember"
	// ReasonNoActiveEndpoint: a region has no usable active tunnel endpoint.
	ReasonNoActiveEndpoint = "NoActiveEndpoint"
	// ReasonSeveralActiveEndpoints: more than one active tunnel endpoint; the first by name is used.
	ReasonSeveralActiveEndpoints = "SeveralActiveEndpoints"
	// ReasonInvalidPublicIP: an active endpoint's publicIP is not an address that can be dialled.
	ReasonInvalidPublicIP = "InvalidPublicIP"
	// ReasonExposedNotDialable: an exposed gateway has no publicIP or is under NAT, so nobody can dial it.
	ReasonExposedNotDialable = "ExposedNotDialable"

	// ReasonNoInternalIP: a node has no usable InternalIP.
	ReasonNoInternalIP = "NoInternalIP"
	// ReasonMalformedAddress: an InternalIP is not an address, or not one that a host can have.
	ReasonMalformedAddress = "MalformedAddress"
	// ReasonDuplicateNodeIP: two nodes of one region have the same InternalIP; the later by name is left out.
	ReasonDuplicateNodeIP = "DuplicateNodeIP"
	// ReasonNodeFamilyMismatch: a node has no address of the family that its region's gateway uses.
	ReasonNodeFamilyMismatch = "NodeFamilyMismatch"
	// ReasonVTEPCollision: two IPv6 node addresses of one region hash to the same VTEP MAC.
	ReasonVTEPCollision = "VTEPCollision"

	// ReasonMissingPodCIDR: a node has no pod prefix; its own address still works.
	ReasonMissingPodCIDR = "MissingPodCIDR"
	// ReasonMalformedCIDR: a prefix cannot be read.
	ReasonMalformedCIDR = "MalformedCIDR"
	// ReasonHostBitsSet: a prefix has bits set beyond its length; it is used with these cleared.
	ReasonHostBitsSet = "HostBitsSet"
	// ReasonUnusableCIDR: a prefix is a default route or covers loopback, link-local or multicast addresses.
	ReasonUnusableCIDR = "UnusableCIDR"
	// ReasonPrefixFamilyMismatch: a pod prefix is of a family in which its node has no InternalIP.
	ReasonPrefixFamilyMismatch = "PrefixFamilyMismatch"

	// ReasonSubnetConflict: a pod or extra prefix overlaps another node's, or a service range.
	ReasonSubnetConflict = "SubnetConflict"
	// ReasonAddressConflict: a node address stands in another region too, or lies in a pod or service range.
	ReasonAddressConflict = "AddressConflict"
	// ReasonAddressIsTunnelEndpoint: a node address is where tunnel packets themselves go to, so that it cannot also
	// be reached inside a tunnel.
	ReasonAddressIsTunnelEndpoint = "AddressIsTunnelEndpoint"
	// ReasonAddressThrown: an address of another region is one that this node must reach outside the tunnel.
	ReasonAddressThrown = "AddressThrown"

	// ReasonPeerKeyMissing: a gateway has not published its public key yet.
	ReasonPeerKeyMissing = "PeerKeyMissing"
	// ReasonPeerKeyInvalid: a gateway's public key is not a key.
	ReasonPeerKeyInvalid = "PeerKeyInvalid"
	// ReasonPeerKeyDuplicate: two gateways published the same public key; the later by name is left out.
	ReasonPeerKeyDuplicate = "PeerKeyDuplicate"
	// ReasonPeerDriverMismatch: a gateway does not offer the configured tunnel driver.
	ReasonPeerDriverMismatch = "PeerDriverMismatch"
	// ReasonNoRelay: this region and others are all behind NAT and no exposed gateway can relay.
	ReasonNoRelay = "NoRelay"

	// ReasonMTUTooSmall: a path is narrower than IPv6 (1280) or Raven (576 for IPv4) needs.
	ReasonMTUTooSmall = "MTUTooSmall"
)
