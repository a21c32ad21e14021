// Package controlplane measures raven-controller on a real API server with a thousand gateways and ten thousand nodes.
package controlplane
