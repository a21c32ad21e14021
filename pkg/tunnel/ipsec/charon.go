package ipsec

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ravencni/raven/pkg/atomicfile"
	"github.com/ravencni/raven/pkg/tunnel/ipsec/vici"
)

const (
	// viciSocket and configFile are charon's, inside the run folder.
	viciSocket = "charon.vici"
	configFile = "strongswan.conf"
	// charonTimeout is how long charon has to answer after its start, and to end when told.
	charonTimeout = 10 * time.Second
)

// charonProgram is strongSwan's daemon as Debian names it.
const charonProgram = "charon-systemd"

// charonConfig needs the names of the kernel plugins, the ports, more settings, the path of the VICI socket, and more
// plugins' settings. The plugins are named, so that nothing else of what is installed joins
// in. Its own thread pool stays at 16: the userspace ESP holds several for good, and with 8 nobody is left to answer VICI.
// Without a cache what it says of a peer's certificate is never said of one that the peer had before.
// A lost packet is repeated after 1, 1.4, 2, 2.7, 3.8 and 5.4 s, and after 7.5 s more the peer counts as dead.
const charonConfig = `charon-systemd {
  load = openssl random nonce hmac kdf pem pkcs1 pkcs8 x509 revocation constraints pubkey %s socket-default vici
  install_routes = no
  install_virtual_ip = no
  cert_cache = no
  port = %d
  port_nat_t = %d
  %s
  retransmit_base = 1.4
  retransmit_timeout = 1.0
  retransmit_tries = 6
  keep_alive = 20s
  journal {
    default = -1
  }
  syslog {
    daemon {
      default = -1
    }
    auth {
      default = -1
    }
  }
  filelog {
    stderr {
      default = 1
      enc = 0
      net = 0
      ike_name = yes
      flush_line = yes
    }
  }
  plugins {
    vici {
      socket = unix://%s
    }
    %s
  }
}
`

// charon is a running charon.
type charon struct {
	cmd    *exec.Cmd
	socket string
	// ended is closed when charon has ended and its output is read; err then holds how.
	ended chan struct{}
	err   error
	// lastWords is the last line that it wrote.
	lastWords atomic.Pointer[string]
}

// startCharon starts charon where the carrier wants it; it dies with the calling process. Each line that it logs goes to
// line.
func startCharon(ctx context.Context, e carrier, dir string, line func(string)) (*charon, error) {
	c := &charon{socket: filepath.Join(dir, viciSocket), ended: make(chan struct{})}
	c.lastWords.Store(new(string))
	conf := filepath.Join(dir, configFile)
	if err := atomicfile.Write(conf, []byte(e.config(c.socket)), 0o600); err != nil {
		return nil, fmt.Errorf("write charon's configuration: %w", err)
	}
	if err := os.Remove(c.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove an old VICI socket: %w", err)
	}
	program, err := exec.LookPath(charonProgram)
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/" + charonProgram) // where a user's PATH may not look
	}
	if err != nil {
		return nil, fmt.Errorf("find strongSwan's daemon: %w; install it (Debian: charon-systemd and libcharon-extra-plugins)", err)
	}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe for charon's log: %w", err)
	}
	c.cmd = exec.Command(program)
	c.cmd.Dir = "/"
	c.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "STRONGSWAN_CONF=" + conf}
	c.cmd.Stdout, c.cmd.Stderr = in, in
	// The signal comes when the carrier's thread ends, which is when this process does at the latest.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	err = e.do(c.cmd.Start)
	err = errors.Join(err, in.Close())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", program, err), out.Close())
	}
	go func() {
		defer close(c.ended)
		readLines(out, func(text string) {
			c.lastWords.Store(&text)
			line(text)
		})
		c.err = errors.Join(c.cmd.Wait(), out.Close())
	}()
	if err := c.awaitAnswer(ctx); err != nil {
		return nil, errors.Join(err, c.end())
	}
	return c, nil
}

// readLines calls each for every line until the writers have gone.
func readLines(r io.Reader, each func(string)) {
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		text, _, err := lines.ReadLine()
		if err != nil {
			return
		}
		each(string(text))
	}
}

// awaitAnswer waits until charon answers on its VICI socket.
func (c *charon) awaitAnswer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, charonTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := c.ask(ctx, func(v *vici.Conn) error {
			_, err := v.Call(ctx, "version", nil)
			return err
		})
		if err == nil {
			return nil
		}
		select {
		case <-c.ended:
			return fmt.Errorf("charon ended at once (%v); its last words: %s", c.err, *c.lastWords.Load())
		case <-ctx.Done():
			return fmt.Errorf("charon does not answer: %w", err)
		case <-tick.C:
		}
	}
}

// ask gives f a connection to charon.
func (c *charon) ask(ctx context.Context, f func(*vici.Conn) error) error {
	v, err := vici.Dial(ctx, c.socket)
	if err != nil {
		return err
	}
	return errors.Join(f(v), v.Close())
}

// end tells charon to end, so that it says farewell to its peers, and after a while makes it.
func (c *charon) end() error {
	stop := time.AfterFunc(charonTimeout, func() { _ = c.cmd.Process.Kill() })
	defer stop.Stop()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end charon: %w", err)
	}
	<-c.ended
	return nil
}

// logCharon returns a function that logs charon's words and passes them on.
func logCharon(log *slog.Logger, also func(string)) func(string) {
	return func(text string) {
		log.Debug("charon: " + text)
		also(text)
	}
}
