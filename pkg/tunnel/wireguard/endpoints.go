package wireguard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
)

// endpointsFile remembers, inside the state folder, which endpoints were planned when the device was last written. The
// device itself cannot tell: it shows the learned ones.
const endpointsFile = "wireguard.endpoints.json"

// endpoints maps a peer's public key to the endpoint that the plan had; invalid where the peer dialled us.
type endpoints map[string]netip.AddrPort

// loadEndpoints reads the memory of the last run. Without it nothing is lost but the knowledge that a plan changed
// while the agent was down, so damage is worth a warning only.
func loadEndpoints(dir string, log *slog.Logger) endpoints {
	path := filepath.Join(dir, endpointsFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return endpoints{}
	}
	var e endpoints
	if err == nil {
		err = json.Unmarshal(text, &e)
	}
	if err != nil {
		log.Warn("forget which WireGuard endpoints were written: the file is damaged", "file", path, "error", err)
		return endpoints{}
	}
	return e
}

// remember replaces the memory by what want plans and writes the file where that differs.
func (e endpoints) remember(dir string, want []peer) (endpoints, error) {
	next := make(endpoints, len(want))
	for _, p := range want {
		next[p.key.String()] = p.endpoint
	}
	if maps.Equal(e, next) {
		return e, nil
	}
	text, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return e, fmt.Errorf("encode the WireGuard endpoints: %w", err)
	}
	if err := replaceFile(filepath.Join(dir, endpointsFile), append(text, '\n')); err != nil {
		return e, fmt.Errorf("remember the WireGuard endpoints: %w", err)
	}
	return next, nil
}
