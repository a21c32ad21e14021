package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/agent/view"
	"github.com/ravencni/raven/pkg/datapath/accel"
)

// SocketName is the socket's name below the state folder.
const SocketName = "agent.sock"

// SocketPath is where the agent of a state folder answers.
func SocketPath(stateDir string) string { return filepath.Join(stateDir, SocketName) }

// patience is how long a request waits for the agent's loop and the kernel.
const patience = 3 * time.Second

// Sources are asked at each request. A nil function has nothing to say.
type Sources struct {
	Settings Settings
	// View must not return nil.
	View        func(context.Context) *view.View
	Attachments func() []accel.Attachment
	Counters    func(context.Context) ([]Counter, error)
	Appliers    func() []Applier
	Warnings    func() []string
	Refused     func() []Refused
	// Quality fills in RTT and loss.
	Quality func([]Peer)
}

// Report asks all sources.
func (s Sources) Report(ctx context.Context) (*Report, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r := &Report{
		Settings: s.Settings, At: time.Now(),
		Peers: []Peer{}, Appliers: []Applier{}, Attachments: []Attachment{}, Counters: []Counter{}, Problems: []Problem{},
	}
	v := s.View(ctx)
	r.At = time.Now() // after the wait: ages are taken from it
	r.fill(v)
	var err error
	if s.Counters != nil {
		var counters []Counter
		counters, err = s.Counters(ctx)
		r.Counters = append(r.Counters, counters...)
	}
	if s.Attachments != nil {
		for _, a := range s.Attachments() {
			r.Attachments = append(r.Attachments, Attachment{a.Program, a.Device, a.Kind, a.Reason})
		}
	}
	if s.Appliers != nil {
		r.Appliers = append(r.Appliers, s.Appliers()...)
	}
	if s.Warnings != nil {
		r.Warnings = s.Warnings()
	}
	if s.Refused != nil {
		r.Refused = s.Refused()
	}
	if s.Quality != nil {
		s.Quality(r.Peers)
	}
	return r, err
}

// Serve answers at path until ctx is done, and removes the socket then. The caller holds the state folder's lock, so a
// socket that is there already belongs to an agent that was killed.
func Serve(ctx context.Context, path string, s Sources) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the socket that an agent left behind: %w", err)
	}
	listener, err := listen(ctx, path)
	if err != nil {
		return fmt.Errorf("listen at %s: %w", path, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/report", func(w http.ResponseWriter, r *http.Request) {
		report, err := s.Report(r.Context())
		if err != nil {
			report.Warnings = append(report.Warnings, "the counters are not whole: "+err.Error())
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(report) // the client may have gone
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: patience, WriteTimeout: 2 * patience}
	var serving sync.WaitGroup
	var ended error
	serving.Go(func() { ended = server.Serve(rootOnly{listener}) })
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // Serve's error says how it ended
	serving.Wait()
	stop()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve %s: %w", path, errors.Join(ended, server.Close()))
}

// listen makes a socket that root alone may open. It is bound under another name first, so that at no moment it stands
// there with wider rights.
func listen(ctx context.Context, path string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path+".new")
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	err = errors.Join(os.Chmod(path+".new", 0o600), os.Rename(path+".new", path))
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return removing{l, path}, nil
}

// removing takes the socket away with the listener.
type removing struct {
	net.Listener
	path string
}

func (r removing) Close() error {
	err := os.Remove(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, r.Listener.Close())
}

// rootOnly hangs up on everybody but root and the agent's own user, whatever the file's rights say.
type rootOnly struct{ net.Listener }

func (r rootOnly) Accept() (net.Conn, error) {
	for {
		c, err := r.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if allowed(c) {
			return c, nil
		}
		_ = c.Close() // a stranger gets no reason
	}
}

func allowed(c net.Conn) bool {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false
	}
	uid := ^uint32(0)
	err = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid = cred.Uid
		}
	})
	return err == nil && (uid == 0 || int64(uid) == int64(os.Geteuid()))
}
