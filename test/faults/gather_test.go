package faults

import (
	"strings"
	"testing"
)

// packed: the support bundle has every part and no key, and the picture shows the other region.
func (w *world) packed(t *testing.T) {
	files := w.sh(t, "east-1", w.tool+" gather -f /tmp/bundle.tgz; tar tzf /tmp/bundle.tgz")
	for _, want := range []string{"raven/report.json", "raven/doctor.json", "raven/drops.json", "raven/nft_list_table_inet_raven.txt"} {
		if !strings.Contains(files, want) {
			t.Errorf("the bundle lacks %s: %s", want, files)
		}
	}
	content := w.sh(t, "east-1", "tar xzOf /tmp/bundle.tgz")
	key := w.sh(t, "east-1", "cat /var/lib/raven/wireguard.key")
	if len(key) < 40 || strings.Contains(content, key) {
		t.Error("the bundle holds the private key, or there is none")
	}
	if !strings.Contains(content, "10.244.32.0/24") || !strings.Contains(content, "203.0.113.42:4500") {
		t.Error("the bundle does not tell the plan and the peers")
	}
	for _, picture := range []string{"graph", "graph --svg"} {
		if out := w.sh(t, "east-1", w.tool+" "+picture); !strings.Contains(out, "gw-west") || !strings.Contains(out, "west-1 up") {
			t.Errorf("%s does not show the other region: %s", picture, out)
		}
	}
}
