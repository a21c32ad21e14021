package wireguard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/tunnel/detached"
	"github.com/ravencni/raven/pkg/tunnel/link"
)

// Link types as the kernel and the netlink library name them.
const (
	kernelDevice    = "wireguard"
	userspaceDevice = "tuntap"
)

// startTimeout is how long a new process has to make its device and answer.
const startTimeout = 10 * time.Second

// tunQueueLength in packets of the userspace device: its default of 500 drops bursts that the kernel's device, which
// queues per peer, takes.
const tunQueueLength = 1000

func queueLength(l netlink.Link) int {
	if l.Type() == userspaceDevice {
		return tunQueueLength
	}
	return 0
}

// ensureDevice returns the device, made if need be, and for a userspace device makes sure that its process answers.
func (d *Driver) ensureDevice(ctx context.Context) (l netlink.Link, changes int, err error) {
	name := d.opts.Device
	l, err = link.Find(name)
	if err == nil && l != nil && l.Type() == userspaceDevice {
		l, err = d.awaitProcess(ctx)
	}
	if err != nil {
		return nil, 0, err
	}
	if l == nil {
		return d.makeDevice(ctx)
	}
	if l.Type() != kernelDevice && l.Type() != userspaceDevice {
		return nil, 0, fmt.Errorf("device %s is of type %s and not one that Raven made: rename or delete it", name, l.Type())
	}
	return l, 0, nil
}

// awaitProcess waits until the process behind an existing userspace device answers, and returns nil where the device
// vanishes meanwhile because its process was just ending. A device whose process stays silent is left alone.
func (d *Driver) awaitProcess(ctx context.Context) (l netlink.Link, err error) {
	name := d.opts.Device
	var silence error
	var vanished bool
	waitErr := detached.Await(ctx, answerTimeout, func() bool {
		if silence = answers(ctx, name); !errors.Is(silence, errNoProcess) {
			return true
		}
		l, err = link.Find(name) // the process is starting or ending
		vanished = err == nil && l == nil
		return err != nil || vanished
	})
	switch {
	case err != nil || vanished:
		return nil, err
	case waitErr == nil && silence == nil:
		return link.Find(name)
	}
	return nil, fmt.Errorf("device %s exists, but: %w; the device is left alone, since it may carry traffic: "+
		"delete it (ip link delete %s) to have it made again", name, silence, name)
}

// makeDevice makes the kernel's device, and where the kernel has none starts the process of the userspace one.
func (d *Driver) makeDevice(ctx context.Context) (netlink.Link, int, error) {
	name := d.opts.Device
	// A process whose device was deleted a moment ago still answers while it ends.
	if err := detached.Await(ctx, endGrace, func() bool { return answers(ctx, name) != nil }); err != nil {
		return nil, 0, fmt.Errorf("a process answers at %s but its device is not in this network namespace: end it: %w",
			socketPath(name), err)
	}
	if !d.opts.Userspace {
		err := netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: name}})
		if err == nil {
			l, err := d.mustFind()
			return l, 1, err
		}
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return nil, 0, fmt.Errorf("make the WireGuard device %s: %w", name, err)
		}
	}
	if d.opts.External {
		if err := d.request(ctx); err != nil {
			return nil, 0, err
		}
		l, err := d.mustFind()
		return l, 1, err
	}
	return d.startDevice(ctx)
}

func (d *Driver) startDevice(ctx context.Context) (netlink.Link, int, error) {
	name := d.opts.Device
	c, err := startProcess(d.opts.Command, d.opts.StateDir)
	if err != nil {
		return nil, 0, err
	}
	d.child = c
	ready := func() bool {
		select {
		case <-c.ended:
			return true
		default:
		}
		return answers(ctx, name) == nil
	}
	if err := detached.Await(ctx, startTimeout, ready); err != nil {
		return nil, 1, errors.Join(fmt.Errorf("the WireGuard process %d does not answer at %s: %w; its last words: %s",
			c.PID, socketPath(name), err, lastWords(d.opts.StateDir)), c.kill()) // the next pass starts another one
	}
	select {
	case <-c.ended:
		return nil, 1, fmt.Errorf("the WireGuard process ended at once (%w): %s", c.err, lastWords(d.opts.StateDir))
	default:
	}
	if err := c.confirm(d.opts.StateDir); err != nil {
		return nil, 1, err
	}
	d.log.Info("this kernel has no WireGuard: started the userspace device", "device", name, "pid", c.PID)
	l, err := d.mustFind()
	return l, 1, err
}

func (d *Driver) mustFind() (netlink.Link, error) {
	l, err := link.Find(d.opts.Device)
	if err == nil && l == nil {
		err = fmt.Errorf("device %s vanished just after it was made", d.opts.Device)
	}
	return l, err
}

// remove takes the device and its process away and returns the number of writes. An external process (Hold) ends serving
// with its device and lives on.
func (d *Driver) remove(ctx context.Context) (changes int, err error) {
	d.wanted, d.refused = nil, nil
	// First of all, or an external process would make the device again.
	if err := removeAll(filepath.Join(d.opts.StateDir, requestFile)); err != nil {
		return 0, err
	}
	process, err := recordedProcess(d.opts.StateDir)
	if err != nil {
		return 0, err
	}
	changes, err = link.Delete(d.opts.Device, kernelDevice, userspaceDevice)
	if err != nil {
		return changes, err
	}
	if process != nil && !d.opts.External {
		if err := process.end(ctx); err != nil {
			return changes, err
		}
	}
	if d.child != nil {
		select {
		case <-d.child.ended:
		case <-ctx.Done():
			return changes, fmt.Errorf("wait for the WireGuard process %d to end: %w", d.child.PID, ctx.Err())
		}
		d.child = nil
	}
	if err := removeAll(filepath.Join(d.opts.StateDir, processFile), filepath.Join(d.opts.StateDir, endpointsFile)); err != nil {
		return changes, err
	}
	d.memory = nil
	return changes, nil
}

// removeFiles deletes what the driver wrote, the key excepted, and the socket folder if nobody else uses it. In a pod that
// folder is a mount, mostly in a read-only root: it cannot be removed from there, and stays empty on the host.
func (d *Driver) removeFiles() error {
	err := removeAll(filepath.Join(d.opts.StateDir, processFile), filepath.Join(d.opts.StateDir, endpointsFile),
		filepath.Join(d.opts.StateDir, logFile))
	rmErr := os.Remove(socketDir)
	for _, stays := range []error{fs.ErrNotExist, unix.ENOTEMPTY, unix.EBUSY, unix.EROFS} {
		if errors.Is(rmErr, stays) {
			return err
		}
	}
	return errors.Join(err, rmErr)
}

func removeAll(paths ...string) error {
	var errs []error
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
