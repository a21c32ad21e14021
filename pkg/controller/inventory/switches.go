package inventory

import (
	"maps"
	"slices"
	"strings"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// Switches are those of the ConfigMap kube-system/raven-cfg.
type Switches struct{ Tunnel, Proxy bool }

// Switches as they were last said.
func (v *Inventory) Switches() Switches {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.switches
}

// SetSwitches takes the data of raven-cfg. A key that is missing, or a missing ConfigMap (nil), leaves the last known
// value as it is.
func (v *Inventory) SetSwitches(data map[string]string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.switches
	for key, to := range v.switches.byKey() {
		if text, ok := data[key]; ok {
			*to = on(text)
			v.written[key] = true
		}
	}
	if v.switches == old || !v.loaded {
		return nil
	}
	return slices.Sorted(maps.Keys(v.gateways))
}

func (s *Switches) byKey() map[string]*bool {
	return map[string]*bool{v1beta1.ConfigEnableTunnel: &s.Tunnel, v1beta1.ConfigEnableProxy: &s.Proxy}
}

func on(text string) bool { return strings.EqualFold(strings.TrimSpace(text), "true") }

// recallSwitches finds the last known value of keys that raven-cfg lacks: the Gateways' status shows it, so that it
// survives the controller. On a fresh cluster there is none, and everything is on.
func (v *Inventory) recallSwitches() {
	for _, name := range slices.Sorted(maps.Keys(v.gateways)) {
		for _, e := range v.gateways[name].Status.ActiveEndpoints {
			if e == nil {
				continue
			}
			for key, to := range v.switches.byKey() {
				if text, ok := e.Config[key]; ok && !v.written[key] {
					*to = on(text)
					v.written[key] = true
				}
			}
		}
	}
}
