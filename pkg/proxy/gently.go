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

// settling is how long a client may take to finish a handshake that has begun: many round trips inside a region.
const settling = 200 * time.Millisecond

// closeGently closes listeners without a reset for clients that the kernel has let in already: at first no handshake may
// begin, then those that had begun are accepted. A client whose first packet came in between is refused when it sends that
// again, a second later, and can go elsewhere.
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
	for _, l := range listeners {
		_ = l.Close() // nothing is lost
	}
}

// refuseHandshakes has the kernel drop each SYN that a listener would answer.
func refuseHandshakes(l net.Listener) error {
	sc, ok := l.(syscall.Conn)
	if !ok {
		return errors.New("it is no socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return fmt.Errorf("reach the socket: %w", err)
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
