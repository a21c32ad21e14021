// Package tunnel holds the reverse tunnels of the L7 proxy: an edge gateway dials the exposed gateways with mutual TLS and
// then serves HTTP/2 on the connection that it dialled; the exposed gateway opens one CONNECT stream for each connection
// to a node of the edge's region. See docs/design/proxy.md.
package tunnel
