package health_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/ravencni/raven/pkg/agent/health"
	"github.com/ravencni/raven/pkg/agent/view"
)

func get(t *testing.T, heart *health.Heart, v *view.View, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	health.Handler(heart, func() *view.View { return v }).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestTheAgentIsAliveWhileItsLoopMakesProgress(t *testing.T) {
	heart := health.NewHeart()
	if code, body := get(t, heart, &view.View{}, "/healthz"); code != http.StatusOK {
		t.Errorf("a fresh agent: %d %s", code, body)
	}
	heart.Beat(time.Now().Add(-2 * time.Minute))
	if code, body := get(t, heart, &view.View{}, "/healthz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "2m0s") {
		t.Errorf("a stalled agent: %d %s", code, body)
	}
}

func TestAStepOfTheWallClockIsNoStall(t *testing.T) {
	heart := health.NewHeart()
	now := time.Now()
	heart.Beat(now)
	for _, step := range []time.Duration{2 * time.Hour, -2 * time.Hour} {
		later := stepped(now.Add(time.Second), step)
		if got := later.Round(0).Sub(now.Round(0)); got != step+time.Second {
			t.Fatalf("the test stepped the clock by %v", got)
		}
		if idle := heart.Since(later); idle != time.Second {
			t.Errorf("one second later, with the clock stepped by %v, the loop has made no progress for %v", step, idle)
		}
	}
}

// stepped is t as time.Now gives it after the wall clock was stepped: another wall time, the same monotonic one. No
// function of package time makes such a value; its first word holds the wall seconds above 30 bits of nanoseconds.
func stepped(t time.Time, step time.Duration) time.Time {
	wall := (*uint64)(unsafe.Pointer(&t))
	*wall += uint64(int64(step/time.Second) << 30)
	return t
}

func TestReadinessNamesEverythingThatIsWrong(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name string
		view view.View
		want []string // empty: ready
	}{
		{"all fine", view.View{Synced: true, Passed: now}, nil},
		{"just started", view.View{Waiting: "the folder"}, []string{"not delivered yet: the folder", "no pass"}},
		{"on a snapshot", view.View{Waiting: "the API server", FromSnapshot: true, Passed: now}, []string{"snapshot"}},
		{"held back", view.View{Synced: true, Held: "it has no Gateway"}, []string{"not applied: it has no Gateway"}},
		{"a cluster without any Gateway yet", view.View{Synced: true, NoneYet: true}, nil},
		{"two parts failed", view.View{Synced: true, Passed: now, Failed: map[string]string{"route": "no device", "filter": "no nft"}},
			[]string{"filter: no nft\nroute: no device"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, body := get(t, health.NewHeart(), &c.view, "/readyz")
			if ready := code == http.StatusOK; ready != (len(c.want) == 0) {
				t.Errorf("%d %s", code, body)
			}
			for _, w := range c.want {
				if !strings.Contains(body, w) {
					t.Errorf("%q does not say %q", body, w)
				}
			}
		})
	}
	if code, _ := get(t, health.NewHeart(), &view.View{}, "/"); code != http.StatusNotFound {
		t.Errorf("another path answers %d", code)
	}
}
