// Package plain is the tunnel driver that encrypts nothing: VXLAN between gateways, for the benchmark and for wide-area
// links that are encrypted already.
package plain
