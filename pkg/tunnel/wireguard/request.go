package wireguard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/ravencni/raven/pkg/tunnel/detached"
)

const (
	// requestFile in the state folder asks the process of raven-tunnel-ds for the userspace device. It is there as long as
	// the node's plan has a WireGuard tunnel that the kernel cannot hold.
	requestFile = "wireguard.wanted"
	// requestPoll is how often Hold looks for the request: a gateway that is elected waits half of it on average, and a
	// look costs one system call.
	requestPoll = 250 * time.Millisecond
	// requestPatience is how long a pass of the agent waits for the device; a later pass finds it all the same.
	requestPatience = 2 * time.Second
	// restartPause keeps a device that cannot be made from taking a whole processor.
	restartPause = time.Second
)

// HoldOptions configure Hold.
type HoldOptions struct {
	// StateDir is the agent's state folder; empty means /var/lib/raven.
	StateDir string
	// Device as in Options; empty means raven-wg0.
	Device string
	// Logger of what begins and ends; nil means slog's default.
	Logger *slog.Logger
}

// Hold serves the userspace WireGuard device whenever a driver with Options.External asks for it, and waits at no cost
// otherwise: on members, and where the kernel has WireGuard. A device whose role has ended is deleted by the driver. It
// returns nil when ctx ends; a device that it serves then vanishes.
func Hold(ctx context.Context, o HoldOptions) error {
	if o.StateDir == "" {
		o.StateDir = defaultStateDir
	}
	if o.Device == "" {
		o.Device = DefaultDevice
	}
	log := o.Logger
	if log == nil {
		log = slog.Default()
	}
	tick := time.NewTicker(requestPoll)
	defer tick.Stop()
	for {
		wanted, err := requested(o.StateDir)
		if err != nil {
			return err
		}
		if wanted {
			err := RunDevice(ctx, DeviceOptions{Name: o.Device, Logger: log})
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				log.Error("the WireGuard device failed and is made again", "device", o.Device, "error", err)
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(restartPause):
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// requested tells whether a driver wants the device.
func requested(stateDir string) (bool, error) {
	_, err := os.Stat(filepath.Join(stateDir, requestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a request of the WireGuard device: %w", err)
	}
	return true, nil
}

// request asks for the device and waits until its process answers, for at most requestPatience. The request stays where
// it is when that takes longer: the process may be starting, and the next pass finds it.
func (d *Driver) request(ctx context.Context) error {
	name := d.opts.Device
	if err := os.MkdirAll(d.opts.StateDir, 0o700); err != nil {
		return fmt.Errorf("make the state folder: %w", err)
	}
	if err := replaceFile(filepath.Join(d.opts.StateDir, requestFile), []byte(name+"\n")); err != nil {
		return fmt.Errorf("ask for the WireGuard device %s: %w", name, err)
	}
	if err := detached.Await(ctx, requestPatience, func() bool { return answers(ctx, name) == nil }); err != nil {
		return fmt.Errorf("this kernel has no WireGuard and no process serves the device %s: see that the process which "+
			"holds the tunnels (DaemonSet raven-tunnel-ds) runs on this node: %w", name, err)
	}
	d.log.Info("this kernel has no WireGuard: the process of raven-tunnel-ds serves the userspace device", "device", name)
	return nil
}
