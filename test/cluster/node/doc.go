// Package node makes a host of a lab a real node of a cluster: containerd, kubelet, kube-proxy and the reference CNI
// plugins, all in the host's namespaces and in cgroups of its own.
package node
