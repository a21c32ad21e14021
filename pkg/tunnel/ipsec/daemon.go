package ipsec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// DefaultDevice is the name of the tunnel device.
	DefaultDevice = "raven-ipsec0"
	// DefaultRunDir holds the sockets: control.sock and charon.vici, the latter also for swanctl --uri.
	DefaultRunDir = "/run/raven/ipsec"
	// controlSocket is the daemon's own, inside the run folder.
	controlSocket = "control.sock"
	// keepPause is between two looks at what runs.
	keepPause = time.Second
	// keepTimeout bounds one look, and applyTimeout what a driver asks for, charon's start included.
	keepTimeout  = 5 * time.Second
	applyTimeout = 20 * time.Second
)

// DaemonOptions configure RunDaemon.
type DaemonOptions struct {
	// Device is the name of the tunnel device; empty means raven-ipsec0.
	Device string
	// RunDir is the folder of the sockets; empty means /run/raven/ipsec.
	RunDir string
	// ESP says what encrypts; empty means ESPAuto.
	ESP ESP
	// Logger; nil means slog's default. charon's own words are logged at level debug.
	Logger *slog.Logger
}

// daemon holds charon, its namespace and the relay to it for as long as they are wanted.
type daemon struct {
	opts DaemonOptions
	log  *slog.Logger
	host int // this process's network namespace

	mu sync.Mutex
	// esp is what encrypts; empty until somebody wants tunnels, since to choose may load modules into the kernel.
	esp      ESP
	session  *session
	want     *Desired
	problem  string
	restarts int
	// retry is when a session that ended may be made anew, after a pause that doubles.
	retry time.Time
	pause time.Duration
	last  map[string]PeerReport
	// leaving: the driver told the process to end, and nothing is to stay.
	leaving bool
}

// RunDaemon serves the control socket, and through it keeps charon and its connections as the driver wants them, until
// ctx ends; charon and the sockets are then gone, and the device is, unless it is the kernel's own, which waits for the
// next process. The device appears in the calling thread's network
// namespace, where the UDP port is, too.
func RunDaemon(ctx context.Context, opts DaemonOptions) (err error) {
	if opts.Device == "" {
		opts.Device = DefaultDevice
	}
	if opts.RunDir == "" {
		opts.RunDir = DefaultRunDir
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if err := opts.ESP.Check(); err != nil {
		return fmt.Errorf("choose what encrypts: %w", err)
	}
	d := &daemon{opts: opts, log: opts.Logger.With("device", opts.Device)}
	d.host, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open this host's network namespace: %w", err)
	}
	defer func() { err = errors.Join(err, os.NewSyscallError("close", unix.Close(d.host))) }()
	if err := os.MkdirAll(opts.RunDir, 0o700); err != nil {
		return fmt.Errorf("make the folder of the IPsec sockets: %w", err)
	}
	var wg sync.WaitGroup
	serving, stop := context.WithCancel(ctx)
	wg.Go(func() { d.keepAll(serving) })
	err = d.serve(ctx, filepath.Join(opts.RunDir, controlSocket))
	stop()
	wg.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(err, d.endSession(d.leaving))
}

// keepAll looks after the session until ctx ends.
func (d *daemon) keepAll(ctx context.Context) {
	tick := time.NewTicker(keepPause)
	defer tick.Stop()
	for {
		var ended chan struct{}
		d.mu.Lock()
		if d.session != nil {
			ended = d.session.charon.ended
		}
		d.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-ended:
		case <-tick.C:
		}
		d.mu.Lock()
		d.keep(ctx)
		d.mu.Unlock()
	}
}

// keep starts what has ended and looks at what runs.
func (d *daemon) keep(ctx context.Context) {
	if d.want == nil {
		return
	}
	if d.session != nil {
		select {
		case <-d.session.charon.ended:
			d.problem = fmt.Sprintf("charon ended at %s (%v) and is started again", time.Now().UTC().Format(time.TimeOnly), d.session.charon.err)
			d.log.Error("charon ended", "error", d.session.charon.err)
			if err := d.endSession(false); err != nil {
				d.log.Warn("cannot clear up after charon", "error", err)
			}
		default:
		}
	}
	if d.session == nil {
		if time.Now().Before(d.retry) {
			return
		}
		d.restarts++
		if _, err := d.apply(ctx, *d.want); err != nil {
			d.log.Error("cannot bring IPsec up", "error", err)
		}
		return
	}
	d.look(ctx)
}

// look reads and keeps what runs.
func (d *daemon) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	reports, err := d.session.connections.keep(ctx, time.Now())
	if err != nil {
		if d.problem == "" {
			d.log.Warn("charon does not do what it is asked", "error", err)
		}
		d.problem = err.Error()
	} else {
		d.problem = ""
		d.pause = 0
	}
	if len(reports) > 0 || err == nil {
		d.last = reports
	}
}

// Pauses before charon is started once more.
const (
	restartPause = 500 * time.Millisecond
	restartMost  = 30 * time.Second
)

// apply brings everything to want and returns the number of writes.
func (d *daemon) apply(ctx context.Context, want Desired) (changes int, err error) {
	if err := want.check(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	d.want = &want
	if d.session != nil && !d.session.serves(want.Port) {
		if err := d.endSession(false); err != nil {
			return 0, err
		}
	}
	if d.session == nil {
		err := d.choose()
		var s *session
		if err == nil {
			s, err = startSession(ctx, d.opts, d.esp, d.host, want.Port, d.log)
		}
		if err != nil {
			d.problem = err.Error()
			d.pause = min(max(2*d.pause, restartPause), restartMost)
			d.retry = time.Now().Add(d.pause)
			return 0, err
		}
		d.session = s
		d.last = nil
		changes++
	}
	n, err := d.session.apply(ctx, want)
	changes += n
	if err != nil {
		d.problem = err.Error()
		return changes, err
	}
	d.look(ctx)
	return changes, nil
}

// choose decides once what encrypts.
func (d *daemon) choose() error {
	if d.esp != "" {
		return nil
	}
	chosen, reason, err := d.opts.ESP.resolve()
	if err != nil {
		return err
	}
	d.log.Info("IPsec encrypts", "by", chosen, "since", reason)
	d.esp = chosen
	return nil
}

// quit ends charon and takes the device away.
func (d *daemon) quit() (changes int, err error) {
	d.want, d.last, d.problem = nil, nil, ""
	d.pause, d.retry = 0, time.Time{}
	if d.session == nil {
		return removeInterfaces(d.opts.Device) // of an earlier process
	}
	return 1, d.endSession(true)
}

// endSession ends charon. The kernel's own devices and states stay for the next session unless remove is true.
func (d *daemon) endSession(remove bool) error {
	if d.session == nil {
		return nil
	}
	err := d.session.end(remove)
	d.session, d.last = nil, nil
	return err
}

func (d *daemon) report() Report {
	return Report{Problem: d.problem, Restarts: d.restarts, ESP: d.esp, Peers: d.last}
}
