package refusal

// remedies say what a person can do. The table at the end of docs/proxy.md has the commonest.
var remedies = map[Reason]string{
	UnknownNode:      "ask for the name that kubectl get nodes shows",
	NoRegion:         "label the node raven.openyurt.io/gateway=<gateway>",
	OtherRegion:      "nothing, unless two exposed gateways disagree on the node's label for long: restart the agent that is behind",
	NoAddress:        "see that kubelet on that node reports an InternalIP",
	PortNotAllowed:   "list the port in proxyHTTPPort or proxyHTTPSPort of an exposed Gateway",
	AmbiguousAddress: "ask by name: API servers need --kubelet-preferred-address-types=Hostname,InternalIP",
	BadTarget:        "ask for node:port",
	NoTunnel:         "see the log of the agent on the active proxy of the node's gateway, which names why it is not connected",
	TunnelLost:       "nothing, if it was once; else see the underlay between the two gateways",
	DialRefused:      "see that something listens on that port of the node",
	DialTimeout:      "see that the node runs, and that its firewall admits its gateway",
	DialFailed:       "see the access log (log=access) of the agent here: its detail names the cause",
	Busy:             "see the access log (log=access) of the agent here for the source that opens too many connections",
	SourceNotAllowed: "add the client's range to proxy-allowed-sources in ConfigMap kube-system/raven-agent-config, if it may",
	NoServerName: "dial by the node's name; an API server that comes by DNS sends one for exec and port-forward only with " +
		"--kubelet-certificate-authority and --kubelet-preferred-address-types=Hostname,InternalIP (docs/proxy.md)",
	BadClientHello:   "see the access log (log=access) of the agent here for who sends something else than TLS to this port",
	BadRequest:       "see the access log (log=access) of the agent here: its detail names what was wrong",
	Slow:             "see the access log (log=access) of the agent here for the client that does not say what it wants",
	NotAuthenticated: "give the client a certificate of signer raven.openyurt.io/proxy (docs/proxy.md), and see both clocks",
	WrongIdentity:    "give the client a certificate of its own name: kubectl get csr shows which were signed",
	NotActive:        "nothing while a gateway's role moves; else see the conditions of that Gateway",
	Off:              `set enable-l7-proxy: "true" in ConfigMap kube-system/raven-cfg`,
	Other:            "update the older of the two gateways' agents, which does not know the other's reason",
}

// Remedy says what a person can do about it.
func (r Reason) Remedy() string { return remedies[Known(string(r))] }
