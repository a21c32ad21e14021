package l7

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/ravencni/raven/pkg/proxy/directory"
	"github.com/ravencni/raven/pkg/proxy/target"
)

// connect joins a client's stream to the node's server, without a network.
func connect(t *testing.T) *stream {
	t.Helper()
	near, far := net.Pipe()
	s := &server{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.answer(far)
		_ = far.Close()
	}()
	t.Cleanup(func() { _ = near.Close(); <-done })
	return &stream{Conn: near, in: bufio.NewReader(near)}
}

func TestRequestsAndAnswersFollowOneAnother(t *testing.T) {
	s := connect(t)
	for range 3 {
		if err := s.turn(request(HTTP, pathSmall)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.ask(request(HTTP, "/nothing")); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("an answer that is none: %v", err)
	}
}

func TestAnIdleAnswerHasBegun(t *testing.T) {
	s := connect(t)
	length, err := s.ask(request(HTTP, pathIdle))
	if err != nil || length != -1 {
		t.Fatalf("length %d, %v", length, err)
	}
	if _, err := io.CopyN(io.Discard, s.in, 2); err != nil {
		t.Error(err)
	}
}

func TestTheClusterLetsTheCloudReachTheNodeByTheEdge(t *testing.T) {
	state, err := cluster([]string{"east-1=172.16.1.11=203.0.113.26", "east-2=172.16.1.12", "west-1=172.16.2.11=203.0.113.42", "west-2=172.16.2.12"})
	if err != nil {
		t.Fatal(err)
	}
	front := directory.New(state, cloud)
	if !front.Active || !front.Front {
		t.Errorf("%s: active %v, front %v", cloud, front.Active, front.Front)
	}
	if e := directory.New(state, edge); !e.Active || e.Front || len(e.Endpoints) != 1 {
		t.Errorf("%s: active %v, front %v, dials %v", edge, e.Active, e.Front, e.Endpoints)
	}
	for _, port := range []uint16{plainPort, tlsPort} {
		to := target.HostPort{Host: target.Host{Name: nodeName}, Port: port}
		if route, err := front.Find(to); err != nil || route.Gateway != "gw-west" {
			t.Errorf("%v: %+v, %v", to, route, err)
		}
	}
	if _, err := cluster([]string{"east-1"}); err == nil {
		t.Error("a node without address was taken")
	}
}
