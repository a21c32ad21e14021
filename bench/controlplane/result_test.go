package controlplane

import (
	"encoding/json"
	"os"
	"runtime"
	"testing"
	"time"
)

// result is what a run measured, beside the limits that it is held to. docs/design/bench.md describes it.
type result struct {
	Gateways int `json:"gateways"`
	Nodes    int `json:"nodes"`
	Changes  int `json:"changes"`
	CPUs     int `json:"cpus"`

	FirstSync       float64 `json:"first_sync_seconds"`
	ChangeMedian    float64 `json:"node_change_to_status_median_seconds"`
	Change99        float64 `json:"node_change_to_status_p99_seconds"`
	MemoryMiB       int     `json:"controller_memory_max_mib"`
	WritesPerChange float64 `json:"writes_per_change"`
	ReadsPerChange  float64 `json:"reads_per_change"`
	Strangers       int     `json:"writes_to_unrelated_gateways"`
	// GatewayBytes are those of the Gateway's watch event, as JSON; RemoteBytes all that reaches the agent of another region
	// on its encrypted connection, the Node's own event included.
	GatewayBytes float64 `json:"gateway_event_bytes_per_change"`
	RemoteBytes  float64 `json:"bytes_to_each_remote_agent_per_change"`

	Limits limits `json:"limits"`
}

type limits struct {
	FirstSync   float64 `json:"first_sync_seconds"`
	Change99    float64 `json:"node_change_to_status_p99_seconds"`
	MemoryMiB   int     `json:"controller_memory_max_mib"`
	Writes      float64 `json:"writes_per_change"`
	RemoteBytes float64 `json:"bytes_to_each_remote_agent_per_change"`
}

func newResult() result {
	return result{Gateways: gateways, Nodes: gateways * nodesEach, Changes: changes, CPUs: runtime.NumCPU(), Limits: limits{
		FirstSync: maxFirstSync.Seconds(), Change99: maxLatency.Seconds(), MemoryMiB: maxMemory >> 20, Writes: maxWrites, RemoteBytes: maxEvent,
	}}
}

// check names everything that is over its limit.
func (r result) check(t *testing.T) {
	t.Helper()
	over := func(what string, got, limit float64) {
		t.Helper()
		if got > limit {
			t.Errorf("%s: %.2f, the limit is %.2f", what, got, limit)
		}
	}
	over("first sync, s", r.FirstSync, r.Limits.FirstSync)
	over("node change to status, 99th percentile, s", r.Change99, r.Limits.Change99)
	over("memory, MiB", float64(r.MemoryMiB), float64(r.Limits.MemoryMiB))
	over("writes per change", r.WritesPerChange, r.Limits.Writes)
	over("bytes to each remote agent per change", r.RemoteBytes, r.Limits.RemoteBytes)
	over("writes of unrelated Gateways", float64(r.Strangers), 0)
}

// keep logs the result, and writes it to a file that path names.
func (r result) keep(t *testing.T, path string) {
	t.Helper()
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", text)
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func rounded(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }
