// Package workloads holds the agents' DaemonSet, for the cleanup of nodes from which somebody has deleted it.
package workloads

import _ "embed"

// Agent is agent.yaml: the DaemonSet raven-agent-ds, with an image that is replaced when it is installed.
//
//go:embed agent.yaml
var Agent []byte
