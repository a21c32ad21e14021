package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/ravencni/raven/pkg/agent/source"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel"
	"github.com/ravencni/raven/pkg/tunnel/ipsec"
)

// options are the flags as they were given.
type options struct {
	nodeName, nodeIP          string
	kubeconfig, manifests     string
	publishDir, stateDir      string
	vpnDriver, vpnBindPort    string
	pskFile                   string
	ipsecESP                  string
	ipsecCA, ipsecCert        string
	ipsecKey                  string
	forwardNodeIP             bool
	natTraversal              bool
	routeDriver               string
	keepAlive, keepAliveLimit int
	serviceCIDRs              []string

	forwarding, acceleration string
	xdp                      bool
	handshakesPerSecond      int
	allowUnencrypted         bool
	externalDevice           bool
	loosePodSource           bool

	allowedSources []string

	metricAddr, healthAddr string
	logLevel               string
	cleanup, cleanupState  bool

	cniConfDir, cniBinDir, cniPlugin string

	forceFailure, forceClsact, userspace bool
}

func (o *options) register(f *pflag.FlagSet) {
	f.StringVar(&o.nodeName, "node-name", "", "name of this node's Node object (default: the environment's NODE_NAME, then the host's name)")
	f.StringVar(&o.nodeIP, "node-ip", "", "this node's private address; only compared with what the cluster says, whose word counts")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "file that says how to reach the API server (default: the pod's service account)")
	f.StringVar(&o.manifests, "manifests", "", "folder of YAML or JSON manifests to read instead of an API server; it is watched")
	f.StringVar(&o.publishDir, "publish-dir", "", "with --manifests: folder to write this node's TunnelEndpoint to")
	f.StringVar(&o.stateDir, "state-dir", datapath.StateDir, "folder for keys, the last good input and recorded sysctls")
	f.StringVar(&o.vpnDriver, "vpn-driver", "", "tunnel driver: ipsec (alias libreswan), wireguard, or plain together with --allow-unencrypted-tunnel (default: vpn-driver of ConfigMap raven-agent-config; ipsec where that is absent too)")
	f.StringVar(&o.ipsecCA, "vpn-ca-file", "", "file with the authorities (PEM) that sign the gateways' certificates for the ipsec driver; with --vpn-cert-file and --vpn-key-file it takes the pre-shared key's place")
	f.StringVar(&o.ipsecCert, "vpn-cert-file", "", "file with this node's certificate (PEM, and those between it and an authority); its DNS name is the node's name")
	f.StringVar(&o.ipsecKey, "vpn-key-file", "", "file with the private key (PEM) of --vpn-cert-file")
	f.StringVar(&o.ipsecESP, "ipsec-esp", string(ipsec.ESPAuto), "what encrypts IPsec where this agent starts strongSwan: kernel, userspace (charon), or auto, the kernel where it can; a charon that runs already keeps its way, and with --external-tunnel-process the flag of the same name of raven-agent tunnels counts")
	f.StringVar(&o.pskFile, "vpn-psk-file", "", "file that holds the pre-shared key of the ipsec driver (default, and as long as the file is not there: the environment's "+ipsec.SecretVariable+")")
	f.StringVar(&o.vpnBindPort, "vpn-bind-port", "", "UDP port of the tunnel where the Gateway names none (default 4500)")
	f.BoolVar(&o.forwardNodeIP, "forward-node-ip", true, "route the nodes' own addresses between regions, as well as pods")
	f.BoolVar(&o.natTraversal, "nat-traversal", false, "not built: gateways behind NAT reach one another through an exposed gateway")
	f.StringSliceVar(&o.serviceCIDRs, "service-cidrs", nil, "the cluster's service ranges; they are never routed between regions")

	f.StringVar(&o.forwarding, "in-region-forwarding", "overlay", "how packets reach the gateway: overlay (VXLAN), or direct (no encapsulation; every node and the gateway must be on one LAN that carries packets with pod addresses)")
	f.StringVar(&o.acceleration, "acceleration", string(accel.ModeAuto), "auto: eBPF redirects where the kernel can; off: the kernel's own tables forward everything")
	f.BoolVar(&o.xdp, "xdp", false, "also drop VXLAN from strangers and handshake floods in the network driver (native XDP only)")
	f.IntVar(&o.handshakesPerSecond, "handshakes-per-second", 100, "with --xdp: tunnel handshakes that one source address may start; 0: no limit")
	f.BoolVar(&o.allowUnencrypted, "allow-unencrypted-tunnel", false, "allow --vpn-driver=plain, which everybody on the way can read")
	f.BoolVar(&o.externalDevice, "external-tunnel-process", false, "the process that holds the tunnels (the userspace WireGuard device, the IPsec daemon) runs in a container of its own; neither start nor end it")
	f.BoolVar(&o.loosePodSource, "loose-pod-source", false, "admit a pod's packets from any device but the underlay's, for CNIs that receive them on another device than they send to")

	f.StringVar(&o.cniConfDir, "cni-conf-dir", "", "the runtime's folder of CNI configurations, such as /etc/cni/net.d: put raven-cni into the chain, and keep it there (default: leave CNI alone)")
	f.StringVar(&o.cniBinDir, "cni-bin-dir", "", "with --cni-conf-dir: the runtime's folder of CNI plugins, such as /opt/cni/bin")
	f.StringVar(&o.cniPlugin, "cni-plugin", "", "with --cni-conf-dir: the plugin's binary to install (default: raven-cni beside this program)")
	f.StringSliceVar(&o.allowedSources, "proxy-allowed-sources", nil, "ranges whose hosts may use the front ends of the L7 proxy on this node (default: proxy-allowed-sources of ConfigMap raven-agent-config; the nodes and pods of its region where that is absent too)")

	f.StringVar(&o.metricAddr, "metric-bind-addr", ":10265", "address of /metrics; 0: none")
	f.StringVar(&o.healthAddr, "health-probe-addr", ":10275", "address of /healthz and /readyz; 0: none")
	f.StringVarP(&o.logLevel, "log-level", "v", "info", "debug, info, warn or error")
	f.BoolVar(&o.cleanup, "cleanup", false, "remove everything that Raven made on this node, print it, and end; keys and the last good input stay")
	f.BoolVar(&o.cleanupState, "cleanup-state", false, "with --cleanup: remove keys and the last good input, too")

	f.StringVar(&o.routeDriver, "route-driver", "vxlan", "without effect; kept so that older command lines work")
	f.IntVar(&o.keepAlive, "keep-alive-interval", 0, "without effect; kept so that older command lines work")
	f.IntVar(&o.keepAliveLimit, "keep-alive-timeout", 0, "without effect; kept so that older command lines work")

	f.BoolVar(&o.forceFailure, "force-bpf-failure", false, "behave as on a kernel that refuses the BPF programs, for tests")
	f.BoolVar(&o.forceClsact, "force-clsact", false, "attach as on kernels without tcx, for tests")
	f.BoolVar(&o.userspace, "force-userspace-wireguard", false, "leave the kernel's WireGuard aside, for tests")
	for _, hidden := range []string{"force-bpf-failure", "force-clsact", "force-userspace-wireguard"} {
		f.Lookup(hidden).Hidden = true
	}
}

// settings are the checked flags.
type settings struct {
	options
	address netip.Addr // --node-ip
	psk     string     // of the environment
	cluster source.Settings
	level   slog.Level
	// warnings tell of flags without effect.
	warnings []string
}

// check reads every flag and names all that are wrong at once.
func (o options) check(f *pflag.FlagSet, env func(string) string) (*settings, error) {
	s := &settings{options: o}
	var errs []error
	bad := func(flag, format string, args ...any) {
		errs = append(errs, fmt.Errorf("--%s: %s", flag, fmt.Sprintf(format, args...)))
	}

	if s.nodeName == "" {
		s.nodeName = env("NODE_NAME")
	}
	if s.nodeName == "" {
		name, err := os.Hostname()
		if err != nil {
			bad("node-name", "it was not given, and the host's name cannot be read: %v", err)
		}
		s.nodeName = strings.ToLower(name)
	}
	if problems := validation.IsDNS1123Subdomain(s.nodeName); len(problems) > 0 {
		bad("node-name", "%q cannot be the name of a Node: %s", s.nodeName, strings.Join(problems, "; "))
	}
	if o.nodeIP != "" {
		ip, err := netip.ParseAddr(o.nodeIP)
		if err != nil || ip.IsUnspecified() || ip.Zone() != "" {
			bad("node-ip", "%q is no address of a node; write it like 192.168.0.10, or leave it out", o.nodeIP)
		}
		s.address = ip.Unmap()
	}
	s.psk = env(ipsec.SecretVariable)
	if some := o.ipsecCA + o.ipsecCert + o.ipsecKey; some != "" && (o.ipsecCA == "" || o.ipsecCert == "" || o.ipsecKey == "") {
		bad("vpn-cert-file", "--vpn-ca-file, --vpn-cert-file and --vpn-key-file go together: name all three, or none")
	}
	if err := ipsec.ESP(o.ipsecESP).Check(); err != nil {
		bad("ipsec-esp", "%v", err)
	}
	if o.pskFile != "" && !filepath.IsAbs(o.pskFile) {
		bad("vpn-psk-file", "%q is not an absolute path", o.pskFile)
	}
	s.checkSource(bad)
	s.checkCluster(f, bad)
	s.checkProxy(bad)

	if o.forwarding != "overlay" && o.forwarding != "direct" {
		bad("in-region-forwarding", "%q is neither overlay nor direct", o.forwarding)
	}
	if m := accel.Mode(o.acceleration); m != accel.ModeAuto && m != accel.ModeOff {
		bad("acceleration", "%q is neither auto nor off", o.acceleration)
	}
	if o.handshakesPerSecond < 0 {
		bad("handshakes-per-second", "%d is negative; 0 means no limit", o.handshakesPerSecond)
	}
	for flag, address := range map[string]string{"metric-bind-addr": o.metricAddr, "health-probe-addr": o.healthAddr} {
		if err := checkListen(address); err != nil {
			bad(flag, "%v", err)
		}
	}
	if o.metricAddr == o.healthAddr && o.metricAddr != "" && o.metricAddr != "0" {
		bad("health-probe-addr", "%s is the address of the metrics already", o.healthAddr)
	}
	if err := s.level.UnmarshalText([]byte(o.logLevel)); err != nil {
		bad("log-level", "%q is none of debug, info, warn, error", o.logLevel)
	}
	s.checkCNI(bad)
	if o.cleanupState && !o.cleanup {
		bad("cleanup-state", "it only makes sense together with --cleanup")
	}
	for _, flag := range []string{"route-driver", "keep-alive-interval", "keep-alive-timeout"} {
		if f.Changed(flag) && f.Lookup(flag).Value.String() != "vxlan" {
			s.warnings = append(s.warnings, "--"+flag+" has no effect")
		}
	}
	return s, errors.Join(errs...)
}

func (s *settings) checkSource(bad func(flag, format string, args ...any)) {
	if s.manifests != "" && s.kubeconfig != "" {
		bad("manifests", "give either --manifests or --kubeconfig")
	}
	if s.publishDir != "" && s.manifests == "" {
		bad("publish-dir", "it belongs to --manifests; with an API server the TunnelEndpoint goes there")
	}
	if s.publishDir == "" && s.manifests != "" && !s.cleanup {
		s.warnings = append(s.warnings, "without --publish-dir no other node learns this node's key and addresses")
	}
	if !filepath.IsAbs(s.stateDir) {
		bad("state-dir", "%q is not an absolute path", s.stateDir)
	}
}

func (s *settings) checkCluster(f *pflag.FlagSet, bad func(flag, format string, args ...any)) {
	if s.vpnDriver != "" {
		driver, err := source.ParseDriver(s.vpnDriver)
		switch {
		case err != nil:
			bad("vpn-driver", "%v", err)
		case driver == "plain" && !s.allowUnencrypted && !s.cleanup:
			bad("vpn-driver", "%v", errPlain)
		}
		s.cluster.Driver = driver
	}
	if s.vpnBindPort != "" {
		port, err := strconv.ParseUint(strings.TrimPrefix(s.vpnBindPort, ":"), 10, 16)
		if err != nil || port == 0 {
			bad("vpn-bind-port", "%q is no port from 1 to 65535", s.vpnBindPort)
		}
		s.cluster.TunnelPort = int(port)
	}
	if f.Changed("forward-node-ip") {
		s.cluster.ForwardNodeIP = &s.forwardNodeIP
	}
	if s.natTraversal {
		bad("nat-traversal", "it is not built; leave the flag out: gateways behind NAT reach one another through an exposed gateway")
	}
	for _, text := range s.serviceCIDRs {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			bad("service-cidrs", "%q is no range; write it like 10.96.0.0/12", text)
			continue
		}
		s.cluster.ServiceCIDRs = append(s.cluster.ServiceCIDRs, p.Masked())
	}
}

func (s *settings) checkProxy(bad func(flag, format string, args ...any)) {
	for _, text := range s.allowedSources {
		ranges, wrong := source.ParseRanges(text)
		if len(wrong) > 0 {
			bad("proxy-allowed-sources", "%s is no range; write it like 192.168.0.0/16, or 192.168.0.7", wrong[0])
		}
		s.cluster.ProxySources = append(s.cluster.ProxySources, ranges...)
	}
}

var errPlain = errors.New("the plain driver does not encrypt; use ipsec or wireguard, or add --allow-unencrypted-tunnel " +
	"where the way between the gateways is protected otherwise")

// checkListen reads an address to listen on.
func checkListen(address string) error {
	if address == "" || address == "0" {
		return nil
	}
	host, port, ok := cutPort(address)
	if n, err := strconv.ParseUint(port, 10, 16); !ok || err != nil || n == 0 {
		return fmt.Errorf(`%q has no port from 1 to 65535: write it like ":10265" or "127.0.0.1:10265", or 0 for none`, address)
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if host == "" {
		return nil
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return fmt.Errorf("%q has no address of this host before the port", address)
	}
	return nil
}

func cutPort(address string) (host, port string, ok bool) {
	i := strings.LastIndex(address, ":")
	if i < 0 {
		return "", "", false
	}
	return address[:i], address[i+1:], true
}

// dropProxyFlags takes out the flags of the original's proxy: this one's ports are fixed, since Services and other nodes
// rely on them, and its certificates come from the cluster.
func dropProxyFlags(args []string) (rest, warnings []string) {
	for i := 0; i < len(args); i++ {
		name, _, hasValue := strings.Cut(args[i], "=")
		if args[i] == "--" || !strings.HasPrefix(name, "--proxy-") || name == "--proxy-allowed-sources" {
			rest = append(rest, args[i])
			continue
		}
		warnings = append(warnings, name+" has no effect: the proxy listens on its standard ports, and gets its certificates by itself")
		if !hasValue && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
			i++
		}
	}
	return rest, warnings
}
