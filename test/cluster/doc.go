// Package cluster runs a real Kubernetes control plane on the machine's loopback: etcd, kube-apiserver and
// kube-controller-manager, with certificates of their own and nothing that outlives the process that started them.
//
// The programs are built once by test/cluster/binaries/build.sh and then start in seconds. There are no kubelets: a Node
// is an object that the test writes.
package cluster
