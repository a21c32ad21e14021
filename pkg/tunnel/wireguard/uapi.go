package wireguard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// socketDir is where every userspace WireGuard implementation keeps its control sockets, and where wg(8) looks.
const socketDir = "/var/run/wireguard"

// answerTimeout is how long a process has to answer on its control socket. wgctrl waits without a limit, so the socket
// is asked first.
const answerTimeout = 5 * time.Second

func socketPath(device string) string { return socketDir + "/" + device + ".sock" }

// errNoProcess: no process serves the control socket.
var errNoProcess = errors.New("no process serves the control socket")

// answers asks the process behind a userspace device for its configuration: nil when it answers, errNoProcess when
// there is none, and another error when there is one that does not answer.
func answers(ctx context.Context, device string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	path := socketPath(device)
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) { // never there, or a dead process's
		return errNoProcess
	}
	if err != nil {
		return fmt.Errorf("connect to the WireGuard process at %s: %w", path, err)
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	err = c.SetDeadline(deadline)
	if err == nil {
		_, err = io.WriteString(c, "get=1\n\n")
	}
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return errNoProcess // it ended while we spoke
	}
	if err != nil {
		return fmt.Errorf("the WireGuard process at %s does not answer within %v: %w", path, answerTimeout, err)
	}
	return nil
}
