// Package l7 measures Raven's L7 proxy beside a direct connection and beside two haproxies with TLS between them, on the
// same path: client, gateway, gateway, node, in network namespaces of a lab. docs/design/bench.md says how.
package l7
