package checks

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ravencni/raven/test/lab"
)

// trackedTCP is a conntrack entry.
type trackedTCP struct {
	port  int // the client's
	state string
	left  time.Duration
	// closed: the connection has ended, and the entry goes within its state's own timeout.
	closed bool
}

// tracked lists a host's entries of connections to a server's port, both families, from n client ports on.
//
// An entry that is ESTABLISHED but has no more left than CLOSE gives counts as CLOSE. The kernel does that to a reset
// whose sequence number is not the very one that it expects (nf_conntrack_proto_tcp.c, RFC 5961): the state stays, in
// case the receiver challenges the reset, and the timeout becomes that of CLOSE. After a stream that the stack did not
// see, no reset has the number that is expected.
func tracked(ctx context.Context, h *lab.Host, serverPort, clientPort, n int) ([]trackedTCP, error) {
	timeouts := map[string]time.Duration{}
	for _, state := range []string{"time_wait", "close", "last_ack", "close_wait", "fin_wait"} {
		value, err := h.ReadSysctl("net/netfilter/nf_conntrack_tcp_timeout_" + state)
		if err != nil {
			return nil, err
		}
		seconds, err := strconv.Atoi(value)
		if err != nil {
			return nil, fmt.Errorf("read the timeout of %s: %w", state, err)
		}
		timeouts[strings.ToUpper(state)] = time.Duration(seconds) * time.Second
	}
	var entries []trackedTCP
	for _, family := range []string{"ipv4", "ipv6"} {
		out, err := h.Run(ctx, "conntrack", "-L", "-f", family, "-p", "tcp", "--orig-port-dst", strconv.Itoa(serverPort))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			// tcp 6 119 TIME_WAIT src=... dst=... sport=12000 dport=9007 ...
			f := strings.Fields(line)
			if len(f) < 8 {
				return nil, fmt.Errorf("read conntrack's line %q", line)
			}
			seconds, err := strconv.Atoi(f[2])
			if err != nil {
				return nil, fmt.Errorf("read the time left in %q: %w", line, err)
			}
			port, err := strconv.Atoi(strings.TrimPrefix(f[6], "sport="))
			if err != nil {
				return nil, fmt.Errorf("read the port in %q: %w", line, err)
			}
			if port < clientPort || port >= clientPort+n {
				continue
			}
			e := trackedTCP{port: port, state: f[3], left: time.Duration(seconds) * time.Second}
			if e.state == "ESTABLISHED" && e.left <= timeouts["CLOSE"] {
				e.state = "CLOSE"
			}
			limit, known := timeouts[e.state]
			e.closed = known && e.left <= limit && (e.state == "TIME_WAIT" || e.state == "CLOSE")
			entries = append(entries, e)
		}
	}
	return entries, nil
}
