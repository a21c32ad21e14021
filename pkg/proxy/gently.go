package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// settling is how long a client may take to finish a handshake that has begun: many round trips inside a region.
	settling = 200 * time.Millisecond
	// accepting is how long a busy proxy may take to accept the clients that finished theirs.
	accepting = 5 * time.Second
)

// closeGently closes listeners without a reset for clients that the kernel has let in already: at first no handshake may
// begin, then those that had begun end, and all of them are accepted by whoever serves the listener. A client whose first packet
// came in between is refused when it sends that again, a second later, and can go elsewhere.
func closeGently(listeners []net.Listener, log *slog.Logger) {
	if len(listeners) == 0 {
		return
	}
	for _, l := range listeners {
		if err := refuseHandshakes(l); err != nil {
			log.Debug("clients that come just now may see a reset", "address", l.Addr().String(), "error", err)
		}
	}
	timer := time.NewTimer(settling)
	<-timer.C
	late := time.Now().Add(accepting)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for _, l := range listeners {
		accepted := allAccepted(l, log)
		for ; !accepted && time.Now().Before(late); accepted = allAccepted(l, log) {
			<-look.C
		}
		if !accepted {
			log.Warn("clients that nobody has accepted see a reset", "address", l.Addr().String(), "after", accepting)
		}
		_ = l.Close() // nothing is lost
	}
}

// allAccepted says whether no client waits in the listener's queue, which is what the kernel resets when it is closed.
func allAccepted(l net.Listener, log *slog.Logger) bool {
	raw, err := socketOf(l)
	if err != nil {
		return true // refuseHandshakes has said so
	}
	var waiting uint32
	var asked error
	err = raw.Control(func(fd uintptr) {
		// Of a listener tcpi_unacked is the length of its queue (tcp_get_info in net/ipv4/tcp.c).
		var info *unix.TCPInfo
		if info, asked = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); asked == nil {
			waiting = info.Unacked
		}
	})
	if err := errors.Join(err, asked); err != nil {
		if !errors.Is(err, net.ErrClosed) {
			log.Debug("whether clients wait to be accepted cannot be told", "address", l.Addr().String(), "error", err)
		}
		return true
	}
	return waiting == 0
}

func socketOf(l net.Listener) (syscall.RawConn, error) {
	sc, ok := l.(syscall.Conn)
	if !ok {
		return nil, errors.New("it is no socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reach the socket: %w", err)
	}
	return raw, nil
}

// refuseHandshakes has the kernel drop each SYN that a listener would answer.
func refuseHandshakes(l net.Listener) error {
	raw, err := socketOf(l)
	if err != nil {
		return err
	}
	const flags, syn = 13, 0x02 // offset of the flags in a TCP header, and the bit (RFC 9293, section 3.1)
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: flags},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: syn, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
	}
	var attached error
	err = raw.Control(func(fd uintptr) {
		attached = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	})
	if err := errors.Join(err, attached); err != nil {
		return fmt.Errorf("attach a socket filter: %w", err)
	}
	return nil
}
