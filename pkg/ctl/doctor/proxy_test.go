package doctor

import (
	"strings"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/agent/local"
	"github.com/ravencni/raven/pkg/proxy/refusal"
)

func TestWhatTheProxyRefusedLatelyIsExplained(t *testing.T) {
	now := time.Now()
	s := &Subject{Report: &local.Report{At: now, Refused: []local.Refused{
		{Front: "tls", Reason: "no-server-name", Count: 3, Last: now.Add(-time.Minute)},
		{Front: "http", Reason: "unknown-node", Count: 1, Last: now.Add(-time.Hour)},
	}}}
	found := nothingRefused(t.Context(), s)
	if len(found) != 1 || found[0].Level != Warn || !strings.Contains(found[0].Says, "no-server-name, 3 times since it started, the last 1m0s ago") ||
		!strings.Contains(found[0].Remedy, "--kubelet-certificate-authority") {
		t.Errorf("%+v", found)
	}
	if found := nothingRefused(t.Context(), &Subject{}); len(found) != 0 {
		t.Errorf("without an agent: %+v", found)
	}
}

func TestEachReasonOfARefusalHasARemedy(t *testing.T) {
	for _, r := range refusal.Reasons() {
		if r.Remedy() == "" {
			t.Errorf("there is no remedy for %s", r)
		}
	}
}
