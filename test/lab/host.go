package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Host is one network namespace of the lab: a node, a pod, a NAT box or the router. A node or box also has pid, mount
// and UTS namespaces of its own, which its pods share.
type Host struct {
	Name string

	lab    *Lab
	node   *Host // the node that a pod runs on; nil on nodes and boxes
	holder *exec.Cmd
	// Namespaces, to be entered in this order.
	net, uts, pid, mnt *os.File
	nl                 *netlink.Handle
	gone               chan struct{}
	// echoes is set while ServeEcho answers here.
	echoes bool
}

// newHost starts a node or box. state is the folder that becomes its /var/lib/raven; with disk it has a root file system
// of its own.
func newHost(l *Lab, name, state string, disk bool) (*Host, error) {
	cmd := exec.Command("/proc/self/exe", holdNode, name, state, strconv.FormatBool(disk))
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS,
	}
	h := &Host{Name: name, lab: l, holder: cmd}
	return h, h.hold(cmd.Start)
}

// newPod starts a pod: a network namespace inside its node's other namespaces.
func newPod(node *Host, name string) (*Host, error) {
	cmd := exec.Command("/proc/self/exe", holdPause)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	h := &Host{Name: name, lab: node.lab, node: node, holder: cmd}
	return h, h.hold(func() error { return node.spawn(cmd) })
}

// hold starts the holder and opens its namespaces once it says that they are furnished.
func (h *Host) hold(start func() error) error {
	h.holder.Env = append(os.Environ(), "GOMAXPROCS=1")
	h.holder.Stderr = os.Stderr
	out, err := h.holder.StdoutPipe()
	if err != nil {
		return fmt.Errorf("make a pipe to the holder of %s: %w", h.Name, err)
	}
	if err := start(); err != nil {
		return fmt.Errorf("start the holder of %s: %w", h.Name, err)
	}
	h.gone = make(chan struct{})
	line, err := bufio.NewReader(out).ReadString('\n')
	go func() {
		defer close(h.gone)
		// It ends by being killed; how it ended says nothing.
		_ = h.holder.Wait()
	}()
	if err != nil || line != "ready\n" {
		return errors.Join(fmt.Errorf("the holder of %s did not get ready (said %q): %v", h.Name, line, err), h.Close())
	}
	if err := h.open(); err != nil {
		return errors.Join(err, h.Close())
	}
	return nil
}

func (h *Host) open() error {
	if err := h.openNamespaces(); err != nil {
		return err
	}
	nl, err := netlink.NewHandleAt(netns.NsHandle(h.net.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open rtnetlink in %s: %w", h.Name, err)
	}
	h.nl = nl
	return nil
}

func (h *Host) openNamespaces() error {
	for _, ns := range []struct {
		file **os.File
		name string
	}{{&h.net, "net"}, {&h.uts, "uts"}, {&h.pid, "pid"}, {&h.mnt, "mnt"}} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", h.holder.Process.Pid, ns.name))
		if err != nil {
			return fmt.Errorf("open the %s namespace of %s: %w", ns.name, h.Name, err)
		}
		*ns.file = f
	}
	return nil
}

// Close ends the host: its holder and, on a node or box, every process in it. A pod loses its network only once its
// processes have ended too.
func (h *Host) Close() error {
	err := h.holder.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-h.gone
	if h.nl != nil {
		h.nl.Close()
	}
	for _, f := range []*os.File{h.net, h.uts, h.pid, h.mnt} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// Netlink is rtnetlink in the host.
func (h *Host) Netlink() *netlink.Handle { return h.nl }

// Node is the node that a pod runs on, or the host itself.
func (h *Host) Node() *Host {
	if h.node != nil {
		return h.node
	}
	return h
}

// Do runs f on a thread that is in the host's network namespace. Sockets that f opens stay there and may be used from
// anywhere. Files are those of the lab's own process; see Path.
func (h *Host) Do(f func() error) error { return on(f, h.net) }

// Path is where the lab's own process finds a file of the host, such as one below /sys/fs/bpf.
func (h *Host) Path(file string) string {
	return fmt.Sprintf("/proc/%d/root%s", h.holder.Process.Pid, file)
}

// spawn starts cmd inside all of the host's namespaces.
func (h *Host) spawn(cmd *exec.Cmd) error { return on(cmd.Start, h.net, h.uts, h.pid, h.mnt) }

// on runs f on a thread of its own inside the namespaces. The pid namespace only matters to children.
func on(f func() error, namespaces ...*os.File) error {
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the runtime ends the thread with the goroutine, and nothing else ever runs on it.
		runtime.LockOSThread()
		// A thread that shares its working folder with others cannot enter a mount namespace.
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			return
		}
		for _, ns := range namespaces {
			if err = unix.Setns(int(ns.Fd()), 0); err != nil {
				err = fmt.Errorf("enter %s: %w", ns.Name(), err)
				return
			}
		}
		err = f()
	}()
	<-done
	return err
}

// Process is a program that runs on a host.
type Process struct {
	*os.Process
	what string
	done chan struct{}
	err  error
}

// Start runs a program in all of the host's namespaces until it ends, ctx ends or the host closes. Its output goes to
// out (nil: nowhere).
func (h *Host) Start(ctx context.Context, out io.Writer, name string, args ...string) (*Process, error) {
	return h.start(ctx, nil, out, out, name, args...)
}

func (h *Host) start(ctx context.Context, in io.Reader, out, errout io.Writer, name string, args ...string) (
	*Process, error,
) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = in, out, errout, "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if err := h.spawn(cmd); err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", name, h.Name, err)
	}
	p := &Process{Process: cmd.Process, what: name + " on " + h.Name, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// Wait returns the error that the program ended with.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stop kills the program (SIGKILL) and waits for its end.
func (p *Process) Stop() error {
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.what, err)
	}
	<-p.done
	return nil
}

// Run runs a program on the host to its end and returns its standard output. The error holds what it wrote to standard
// error.
func (h *Host) Run(ctx context.Context, name string, args ...string) (string, error) {
	return h.RunWith(ctx, nil, name, args...)
}

// RunWith is Run with a standard input.
func (h *Host) RunWith(ctx context.Context, in io.Reader, name string, args ...string) (string, error) {
	var out, errout tail
	p, err := h.start(ctx, in, &out, &errout, name, args...)
	if err != nil {
		return "", err
	}
	if err := p.Wait(); err != nil {
		return out.String(), fmt.Errorf("%s %v on %s: %w: %s", name, args, h.Name, errors.Join(err, ctx.Err()),
			errout.String())
	}
	return out.String(), nil
}

// tail is a writer that keeps what was written; several goroutines may use it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
