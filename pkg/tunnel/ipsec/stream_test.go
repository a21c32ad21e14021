package ipsec

import (
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	testns "github.com/ravencni/raven/test/netns"
)

// TestRenewingKeysUnderAStreamOnBusyProcessorsLosesNothing sends datagrams both ways while keys are renewed and other
// processes want all processors. Slowly, on an emulated one, there are no other processes.
func TestRenewingKeysUnderAStreamOnBusyProcessorsLosesNothing(t *testing.T) {
	needsCharon(t)
	perSecond := 300
	if slowly := os.Getenv("RAVEN_TEST_SLOWLY") != ""; slowly {
		perSecond = 50
	} else {
		occupyProcessors(t)
	}
	testns.Run(t, func(t *testing.T) {
		east, west := renewing(t)
		east.awaitPing("-I", "10.1.0.1", "10.2.0.1")
		first := east.associations()
		there := newStream(t, east, "10.1.0.1", west, "10.2.0.1", perSecond)
		back := newStream(t, west, "10.2.0.1", east, "10.1.0.1", perSecond)
		east.awaitRenewals(first)
		for _, s := range []*stream{there, back} {
			lost, of, slowest := s.end()
			t.Logf("of %d datagrams, %d a second, %d were lost, and the slowest took %v", of, perSecond, lost, slowest.Round(time.Millisecond))
			if lost > 0 || of < perSecond {
				t.Errorf("lost %d of %d datagrams", lost, of)
			}
		}
	})
}

// occupyProcessors runs as many busy processes as there are processors, until the test ends.
func occupyProcessors(t *testing.T) {
	t.Helper()
	for range runtime.NumCPU() {
		cmd := exec.Command("sh", "-c", "while :; do :; done")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // it was killed
		})
	}
}

// stream is datagrams from one gateway's pod to another's, with numbers.
type stream struct {
	t        *testing.T
	from, to *net.UDPConn
	stop     chan struct{}
	sent     chan []time.Time
	came     chan map[uint32]time.Time
}

const lastDatagram = ^uint32(0)

func newStream(t *testing.T, from *gateway, source string, to *gateway, destination string, perSecond int) *stream {
	t.Helper()
	s := &stream{t: t, stop: make(chan struct{}), sent: make(chan []time.Time, 1), came: make(chan map[uint32]time.Time, 1)}
	to.do(func() (err error) {
		s.to, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(destination)})
		if err == nil {
			err = s.to.SetReadBuffer(socketBuffer)
		}
		return err
	})
	from.do(func() (err error) {
		s.from, err = net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(source)}, s.to.LocalAddr().(*net.UDPAddr))
		return err
	})
	go s.send(time.Second / time.Duration(perSecond))
	go s.receive()
	return s
}

func (s *stream) send(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	datagram := make([]byte, 1000)
	var sent []time.Time
	for {
		select {
		case <-s.stop:
			s.sent <- sent
			return
		case <-tick.C:
		}
		binary.BigEndian.PutUint32(datagram, uint32(len(sent)))
		sent = append(sent, time.Now())
		_, _ = s.from.Write(datagram) // what is not sent counts as lost
	}
}

// receive notes what comes until the last datagram, or for a while after the end.
func (s *stream) receive() {
	came := map[uint32]time.Time{}
	buffer := make([]byte, 2000)
	for {
		n, err := s.to.Read(buffer)
		if err != nil || n < 4 {
			break
		}
		number := binary.BigEndian.Uint32(buffer)
		if number == lastDatagram {
			break
		}
		came[number] = time.Now()
	}
	s.came <- came
}

// end returns how many datagrams were lost.
func (s *stream) end() (lost, of int, slowest time.Duration) {
	close(s.stop)
	sent := <-s.sent
	last := binary.BigEndian.AppendUint32(nil, lastDatagram)
	if _, err := s.from.Write(last); err != nil {
		s.t.Error(err)
	}
	if err := s.to.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		s.t.Error(err)
	}
	came := <-s.came
	for n, at := range sent {
		if arrived, ok := came[uint32(n)]; ok {
			slowest = max(slowest, arrived.Sub(at))
		} else {
			lost++
		}
	}
	if err := s.from.Close(); err != nil {
		s.t.Error(err)
	}
	if err := s.to.Close(); err != nil {
		s.t.Error(err)
	}
	return lost, len(sent), slowest
}
