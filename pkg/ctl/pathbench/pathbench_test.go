package pathbench

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/ctl/recorded"
)

func serving(t *testing.T, secret string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, secret) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func TestRoundTripsAndAStreamAreMeasured(t *testing.T) {
	r, err := Ask(t.Context(), serving(t, "secret"), "secret", 400*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if r.RoundTrips < 1 || r.P50 <= 0 || r.P99 < r.P50 || r.Bytes < chunk || r.Seconds < 0.2 || r.GbitPerSecond() <= 0 {
		t.Errorf("%+v", r)
	}
}

func TestAStrangerIsNotServed(t *testing.T) {
	if r, err := Ask(t.Context(), serving(t, "secret"), "Secret", 100*time.Millisecond); err == nil {
		t.Errorf("without the secret: %+v", r)
	}
}

func TestTheTableIsAsRecordedAndFits(t *testing.T) {
	var b bytes.Buffer
	r := Result{From: "hangzhou-gateway-1", To: "qingdao-gateway-1", Address: "[fd00:1234:5678:9abc:def0:1234:5678:9abc]:65535",
		RoundTrips: 1000, P50: 1234.5, P99: 99999, Bytes: 5 << 30, Seconds: 5}
	if err := Write(&b, r); err != nil {
		t.Fatal(err)
	}
	recorded.Compare(t, "testdata/result.txt", b.Bytes())
	recorded.JSON(t, "testdata/result.json", r)
}
