package node

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/ravencni/raven/test/cluster"
	"github.com/ravencni/raven/test/lab"
)

// Where things lie on a node.
const (
	containerdConfig = "/etc/containerd/config.toml"
	kubeletConfig    = "/etc/kubernetes/kubelet.yaml"
	proxyConfig      = "/etc/kubernetes/kube-proxy.yaml"
	kubeconfig       = "/etc/kubernetes/kubelet.kubeconfig"
	proxyKubeconfig  = "/etc/kubernetes/kube-proxy.kubeconfig"
	kubeletCert      = "/etc/kubernetes/kubelet.crt"
	kubeletKey       = "/etc/kubernetes/kubelet.key"
	authority        = "/etc/kubernetes/ca.crt"
	// ConflistFolder is where the container runtime looks for its network.
	ConflistFolder = "/etc/cni/net.d"
	// ConflistFile is the only one there before Raven comes.
	ConflistFile = "10-pods.conflist"
	// PluginFolder is where it looks for the network's plugins.
	PluginFolder = "/opt/cni/bin"
)

// What is the same in all clusters that Start makes nodes of.
const (
	clusterDNS    = "10.96.0.10"
	clusterDomain = "cluster.local"
	clusterCIDR   = "10.244.0.0/16"
	// SandboxImage holds a pod's namespaces; the registry must have it.
	SandboxImage = "registry.k8s.io/pause:3.10"
)

func (n *Node) furnish(ctx context.Context, o Options) error {
	files, err := o.files(n.Name)
	if err != nil {
		return err
	}
	for path, content := range files {
		if err := os.MkdirAll(n.Path(filepath.Dir(path)), 0o755); err != nil {
			return fmt.Errorf("make the folder of %s: %w", path, err)
		}
		if err := os.WriteFile(n.Path(path), content, 0o600); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	all, err := hierarchies()
	if err != nil {
		return err
	}
	args := []string{"-euc", furnishScript, "sh", os.Getenv(envGroup), n.Name, o.Programs.Plugins, PluginFolder}
	for _, h := range all {
		args = append(args, h.name(), h.options, h.own)
	}
	_, err = n.Run(ctx, "/bin/sh", args...)
	return err
}

// furnishScript gives a node the plugins, cgroups of its own and a view of the machine's settings in which kubelet finds
// those that it would change for the whole machine as it wants them.
const furnishScript = `
	run=$1 node=$2 plugins=$3 bin=$4; shift 4
	mkdir -p "$bin" /var/log/pods
	cp "$plugins"/* "$bin"

	all=/run/all-cgroups
	for_each() { while [ $# -gt 0 ]; do "$do" "$1" "$2" "$3"; shift 3; done; }
	join() {
		mkdir -p "$all/$1"
		mount -t cgroup -o "$2" cgroup "$all/$1"
		group=$all/$1$3
		for below in "$run" "$node"; do
			mkdir -p "$group/$below"
			for file in cpuset.cpus cpuset.mems; do
				[ ! -e "$group/$file" ] || cat "$group/$file" >"$group/$below/$file"
			done
			group=$group/$below
		done
		echo 0 >"$group/cgroup.procs"
	}
	do=join; for_each "$@"
	unshare --cgroup -- sh -euc '
		mount -t tmpfs -o mode=755 cgroups /sys/fs/cgroup
		while [ $# -gt 0 ]; do
			mkdir "/sys/fs/cgroup/$1"
			mount -t cgroup -o "$2" cgroup "/sys/fs/cgroup/$1"
			shift 3
		done' sh "$@"
	leave() { umount "$all/$1"; }
	do=leave; for_each "$@"

	setting() {
		mkdir -p "/run/settings/$(dirname "$1")"
		echo "$2" >"/run/settings/$1"
		mount --bind "/run/settings/$1" "/proc/sys/$1"
	}
	setting vm/overcommit_memory 1
	setting vm/panic_on_oom 0
	setting kernel/panic 10
	setting kernel/panic_on_oops 1
	setting kernel/keys/root_maxkeys 1000000
	setting kernel/keys/root_maxbytes 25000000
`

func (o Options) files(name string) (map[string][]byte, error) {
	files := map[string][]byte{
		authority:                           o.Cluster.Authority(),
		containerdConfig:                    []byte(containerdTOML),
		"/etc/resolv.conf":                  []byte("nameserver " + o.Registry.Addr().String() + "\n"),
		"/etc/hostname":                     []byte(name + "\n"),
		kubeletConfig:                       []byte(kubeletYAML),
		proxyConfig:                         fmt.Appendf(nil, proxyYAML, proxyKubeconfig, name, o.Proxy, clusterCIDR),
		ConflistFolder + "/" + ConflistFile: []byte(Conflist(o.Network, o.Pods)),
		"/etc/containerd/certs.d/_default/hosts.toml": fmt.Appendf(nil, hostsTOML, o.Registry),
	}
	var err error
	// As a cluster has them whose API server is given the kubelets' authority: the node's name and its address.
	if files[kubeletCert], files[kubeletKey], err = o.Cluster.IssueServer(name, o.IP.String()); err != nil {
		return nil, err
	}
	for path, user := range map[string][]string{
		kubeconfig:      {"system:node:" + name, "system:nodes"},
		proxyKubeconfig: {"system:kube-proxy"},
	} {
		config, err := o.Cluster.User(user[0], user[1:]...)
		if err != nil {
			return nil, err
		}
		config.Host = o.Server
		if files[path], err = cluster.Kubeconfig(config); err != nil {
			return nil, err
		}
	}
	return files, nil
}

const hostsTOML = `[host."http://%s"]
capabilities = ["pull", "resolve"]
`

// The machine gives its root no CAP_SYS_RESOURCE: hence restrict_oom_score_adj.
const containerdTOML = `version = 4
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.zfs"]

[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/containerd/opt"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "` + SandboxImage + `"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "/etc/containerd/certs.d"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["` + PluginFolder + `"]
conf_dir = "` + ConflistFolder + `"
use_internal_loopback = true
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
`

// A node shares the machine's processors and memory with the others: nothing is reserved, nothing is evicted.
const kubeletYAML = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: ` + authority + `}
authorization: {mode: Webhook}
tlsCertFile: ` + kubeletCert + `
tlsPrivateKeyFile: ` + kubeletKey + `
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
maxPods: 250
serializeImagePulls: false
volumePluginDir: /var/lib/kubelet/volumeplugins
resolvConf: /etc/resolv.conf
clusterDNS: [` + clusterDNS + `]
clusterDomain: ` + clusterDomain + `
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}
`

const proxyYAML = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: %s}
hostnameOverride: %s
mode: %s
clusterCIDR: %s
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`

// Conflist is a node's configuration of the network before Raven comes: a bridge or a veth to each pod, addresses of the
// node's prefix, and a masquerade of what leaves it, as a plain cluster has.
func Conflist(network lab.PodNetwork, pods netip.Prefix) string {
	plugin := `"type": "ptp", "ipMasq": true,`
	if network == lab.Bridge {
		plugin = `"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": true,`
	}
	return strings.NewReplacer("PLUGIN", plugin, "PODS", pods.String()).Replace(`{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {
      PLUGIN
      "ipam": {"type": "host-local", "ranges": [[{"subnet": "PODS"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`)
}
