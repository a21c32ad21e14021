package wireguard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// endpointsFile remembers, inside the state folder, what the device itself cannot tell: which endpoints were planned
// when it was last written (it shows the learned ones), and after its process died, which ones it had learned.
const endpointsFile = "wireguard.endpoints.json"

// endpoints maps a peer's public key in base64 to what is remembered of the peer.
type endpoints map[string]memory

type memory struct {
	// Planned is the endpoint that the plan had; invalid where the peer dialled us.
	Planned netip.AddrPort `json:"planned"`
	// Learned is where the peer's packets came from; invalid where none came.
	Learned netip.AddrPort `json:"learned"`
}

// loadEndpoints reads the memory of the last run. Losing it costs no more than a slower reconnection, so damage is worth a
// warning only.
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

// of returns what is remembered of a peer, nil where nothing is.
func (e endpoints) of(key wgtypes.Key) *memory {
	if m, known := e[key.String()]; known {
		return &m
	}
	return nil
}

// next is the memory after the device have was brought to want.
func (e endpoints) next(have *wgtypes.Device, want []peer) endpoints {
	learned := make(map[wgtypes.Key]netip.AddrPort, len(have.Peers))
	for _, h := range have.Peers {
		if h.Endpoint != nil {
			learned[h.PublicKey] = unmapped(h.Endpoint.AddrPort())
		}
	}
	next := make(endpoints, len(want))
	for _, p := range want {
		m := memory{Planned: p.endpoint, Learned: learned[p.key]}
		if !m.Learned.IsValid() {
			m.Learned = e[p.key.String()].Learned
		}
		next[p.key.String()] = m
	}
	return next
}

func (e endpoints) save(dir string) error {
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the WireGuard endpoints: %w", err)
	}
	if err := replaceFile(filepath.Join(dir, endpointsFile), append(text, '\n')); err != nil {
		return fmt.Errorf("remember the WireGuard endpoints: %w", err)
	}
	return nil
}
