package wireguard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/ravencni/raven/pkg/tunnel/detached"
)

// DeviceOptions configure RunDevice.
type DeviceOptions struct {
	// Name of the device to make; empty means raven-wg0.
	Name string
	// Logger takes warnings and errors; nil writes text to standard error, which is kept below 1 MiB where it is a file.
	Logger *slog.Logger
}

// RunDevice makes a userspace WireGuard device and serves it, in the foreground, until the device is deleted (it then
// returns nil) or ctx ends (the device then vanishes). It is configured, as any userspace WireGuard device, through the
// socket /var/run/wireguard/<name>.sock; a socket deleted by hand is made again.
//
// The device forwards from the start and whatever the link state, so that a link set down and up again by another hand
// costs no session.
func RunDevice(ctx context.Context, opts DeviceOptions) error {
	name := opts.Name
	if name == "" {
		name = DefaultDevice
	}
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.NewTextHandler(detached.NewLog(os.Stderr), nil))
	}
	log = log.With("device", name)

	tunnel, err := openTUN(name)
	if err != nil {
		return err
	}
	dev := device.NewDevice(tunnel, conn.NewDefaultBind(), &device.Logger{
		Verbosef: device.DiscardLogf,
		Errorf:   func(format string, args ...any) { log.Warn(fmt.Sprintf(format, args...)) },
	})
	defer dev.Close()
	if err := dev.Up(); err != nil {
		return fmt.Errorf("open the UDP sockets of %s: %w", name, err)
	}
	log.Info("userspace WireGuard device is ready", "pid", os.Getpid())

	for {
		listener, err := listen(name)
		if err != nil {
			return err
		}
		err = serve(ctx, dev, listener)
		switch {
		case ctx.Err() != nil:
			log.Info("told to end")
			return nil
		case err == nil:
			log.Info("the device was deleted")
			return nil
		}
		// The listener fails when somebody deletes or changes its socket, which is no reason to drop the tunnels.
		log.Warn("the control socket was lost and is made again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(relistenPause):
		}
	}
}

// relistenPause keeps a socket that fails again and again from taking a whole processor.
const relistenPause = 100 * time.Millisecond

func listen(name string) (net.Listener, error) {
	socket, err := ipc.UAPIOpen(name)
	if err != nil {
		return nil, fmt.Errorf("open the control socket of %s: %w", name, err)
	}
	listener, err := ipc.UAPIListen(name, socket)
	if err = errors.Join(err, socket.Close()); err != nil { // the listener has a copy
		return nil, fmt.Errorf("listen on the control socket of %s: %w", name, err)
	}
	return listener, nil
}

// serve answers on listener until ctx ends or the device is closed (nil), or the listener fails. It returns when all
// that it started has ended.
func serve(ctx context.Context, dev *device.Device, listener net.Listener) error {
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		open     = map[net.Conn]bool{}
		closing  bool
		failed   = make(chan error, 1)
		accepted = make(chan net.Conn)
		stop     = make(chan struct{})
	)
	wg.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				failed <- err
				return
			}
			select {
			case accepted <- c:
			case <-stop:
				c.Close()
				return
			}
		}
	})
	defer func() {
		close(stop)
		listener.Close()
		mu.Lock()
		closing = true
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-dev.Wait():
			return nil
		case err := <-failed:
			return err
		case c := <-accepted:
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				dev.IpcHandle(c)
				mu.Lock()
				defer mu.Unlock()
				if !closing {
					delete(open, c)
				}
			})
		}
	}
}

// alwaysUp is a TUN device without a watcher of its link: it reports no events.
type alwaysUp struct{ tun.Device }

// MTU of 0 tells the WireGuard device to pad every packet to its 16-byte grid, the last few bytes below the MTU too;
// the planner's MTU leaves room for that. A real value would have to follow every change of the link.
func (alwaysUp) MTU() (int, error) { return 0, nil }

func openTUN(name string) (tun.Device, error) {
	const path = "/dev/net/tun"
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s for device %s: %w; load the kernel module tun, or give the container this device",
			path, name, err)
	}
	tunnel, err := attachTUN(fd, name)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the TUN device %s: %w", name, err), unix.Close(fd))
	}
	return tunnel, nil
}

// attachTUN turns fd into a device with segmentation offload: with IFF_VNET_HDR the kernel hands over, and takes, up to
// 64 KiB of a TCP or UDP stream at once.
func attachTUN(fd int, name string) (tun.Device, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return nil, err
	}
	tunnel, _, err := tun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		return nil, err
	}
	return alwaysUp{tunnel}, nil
}
