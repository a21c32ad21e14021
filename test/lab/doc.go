// Package lab builds regions of nodes and pods out of network namespaces on one machine, runs the real agents in them
// and offers the means to send, watch and judge traffic; nothing in it touches the machine's own network.
//
// Three layers of namespaces keep it apart. The lab process itself lives in an enclosure (pid, mount and network
// namespaces of its own, see Enclose): whatever happens to that process, kill -9 included, the kernel ends everything
// below it. Every node, NAT box and router is a Host, held by a tiny process that is init of its own pid namespace, so
// that a node can be switched off and on again like a machine. Every pod is a Host too, a network namespace held by a
// pause process that lives in its node's other namespaces.
package lab
