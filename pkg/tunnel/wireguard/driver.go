package wireguard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/pkg/tunnel/link"
)

const (
	// Name of the driver in configuration and Plan.
	Name = "wireguard"
	// DefaultDevice is the name of the tunnel device.
	DefaultDevice = "raven-wg0"
	// defaultStateDir is where keys and records live.
	defaultStateDir = "/var/lib/raven"
)

// Options configure a Driver; the zero value is what an agent on a plain host wants.
type Options struct {
	// StateDir keeps the private key, the record of the device's process and its log; empty means /var/lib/raven.
	StateDir string
	// Device names the tunnel device; empty means raven-wg0.
	Device string
	// Logger of events worth a line; nil means slog's default.
	Logger *slog.Logger
	// Command starts the process of the userspace device, which must call RunDevice for Device; empty means the running
	// executable with the arguments wireguard-device --name <Device>.
	Command []string
	// External: the userspace device's process is somebody else's, such as a container of its own. The driver then asks
	// for it by a file in StateDir (see Hold) and configures it, and neither starts nor ends it.
	External bool
	// Userspace leaves the kernel's own WireGuard aside even where there is one, for comparisons.
	Userspace bool
}

// Driver holds WireGuard tunnels to the gateways of other regions. It implements tunnel.Driver.
type Driver struct {
	opts    Options
	log     *slog.Logger
	scratch wgtypes.Key
	// memory of endpoints; nil until it is read from disk.
	memory endpoints
	// wanted and refused are the peers of the last Apply, for Status.
	wanted  []peer
	refused []refusal
	// child is the userspace device's process if this driver started it.
	child *child
}

var _ tunnel.Driver = (*Driver)(nil)

// New makes a driver; it touches nothing yet.
func New(opts Options) (*Driver, error) {
	if opts.StateDir == "" {
		opts.StateDir = defaultStateDir
	}
	if opts.Device == "" {
		opts.Device = DefaultDevice
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if !filepath.IsAbs(opts.StateDir) {
		return nil, fmt.Errorf("the state folder %q must be an absolute path", opts.StateDir)
	}
	if len(opts.Command) == 0 && !opts.External {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this executable, which also serves the userspace device: %w", err)
		}
		opts.Command = []string{self, "wireguard-device", "--name", opts.Device}
	}
	nobody, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return nil, fmt.Errorf("make the scratch peer's key: %w", err)
	}
	return &Driver{opts: opts, log: opts.Logger.With("driver", Name), scratch: nobody.PublicKey()}, nil
}

// Name is wireguard.
func (d *Driver) Name() string { return Name }

// PublicKey returns the node's public key in base64 and makes the private key on first use.
func (d *Driver) PublicKey(context.Context) (string, error) {
	key, err := loadKey(d.opts.StateDir)
	if err != nil {
		return "", err
	}
	return key.PublicKey().String(), nil
}

// Apply brings the device, its process and its peers to plan. It writes only what differs: sessions of peers that the
// plan has not changed go on. A plan without a tunnel, or with another driver's, removes the device and its process and
// keeps the key.
func (d *Driver) Apply(ctx context.Context, plan *topology.Plan) (tunnel.Result, error) {
	if plan.Tunnel == nil || plan.Tunnel.Driver != "" && plan.Tunnel.Driver != Name {
		changes, err := d.remove(ctx)
		return tunnel.Result{Changes: changes}, err
	}
	key, err := loadKey(d.opts.StateDir)
	if err != nil {
		return tunnel.Result{Device: d.standing(plan)}, err
	}
	wanted, refused, errs := wantedPeers(plan.Tunnel.Peers, key)
	d.wanted, d.refused = wanted, refused

	var result tunnel.Result
	l, n, err := d.ensureDevice(ctx)
	result.Changes += n
	if err != nil {
		result.Device = d.standing(plan)
		return result, errors.Join(append(errs, err)...)
	}
	result.Device = deviceOf(l, plan)

	// The link first: a device that is down sends no handshake when it gets its peers.
	n, err = link.Apply(l, link.Want{
		MTU:        plan.Tunnel.MTU,
		TxQueueLen: queueLength(l),
		Addresses:  link.NodeAddresses(plan),
	})
	result.Changes += n
	errs = append(errs, err)

	n, err = d.configure(key, plan.Tunnel.ListenPort)
	result.Changes += n
	return result, errors.Join(append(errs, err)...)
}

// standing is the device as it is, where Apply failed before it came to it: it may well carry traffic, and to those who
// lead packets into it a device that is not reported is one that is gone. It is zero where there is none.
func (d *Driver) standing(plan *topology.Plan) tunnel.Device {
	l, err := link.Find(d.opts.Device)
	if err != nil || l == nil || l.Type() != kernelDevice && l.Type() != userspaceDevice {
		return tunnel.Device{}
	}
	return deviceOf(l, plan)
}

func deviceOf(l netlink.Link, plan *topology.Plan) tunnel.Device {
	return tunnel.Device{Name: l.Attrs().Name, Index: l.Attrs().Index, MTU: plan.Tunnel.MTU}
}

// configure writes the difference between the device and d.wanted.
func (d *Driver) configure(key wgtypes.Key, port int) (changes int, err error) {
	client, err := wgctrl.New()
	if err != nil {
		return 0, fmt.Errorf("open WireGuard's control interface: %w", err)
	}
	defer client.Close()
	have, err := client.Device(d.opts.Device)
	if err != nil {
		return 0, fmt.Errorf("read the configuration of %s: %w", d.opts.Device, err)
	}
	if d.memory == nil {
		d.memory = loadEndpoints(d.opts.StateDir, d.log)
	}
	var errs []error
	if have.ListenPort != port {
		if err := portFree(port); err != nil {
			errs = append(errs, fmt.Errorf("let %s listen on UDP port %d: %w", d.opts.Device, port, err))
			port = have.ListenPort
		}
	}
	delta := compare(have, key, port, d.wanted, d.memory, d.scratch, time.Now())
	if !delta.empty() {
		if err := d.write(client, delta); err != nil {
			return delta.changes, errors.Join(append(errs, err)...)
		}
	}
	if next := d.memory.next(have, d.wanted); !maps.Equal(next, d.memory) {
		if err := next.save(d.opts.StateDir); err != nil {
			return delta.changes, errors.Join(append(errs, err)...)
		}
		d.memory = next
	}
	return delta.changes, errors.Join(errs...)
}

// write applies delta in one go, and where that fails item by item, so that the one at fault is named and alone pays.
func (d *Driver) write(client *wgctrl.Client, delta diff) error {
	var errs []error
	for _, config := range []wgtypes.Config{delta.config, delta.nudge, delta.quiet} {
		if len(steps(config)) > 0 && client.ConfigureDevice(d.opts.Device, config) != nil {
			errs = append(errs, d.writeEach(client, config, delta.names))
		}
	}
	return errors.Join(errs...)
}

func (d *Driver) writeEach(client *wgctrl.Client, config wgtypes.Config, names map[wgtypes.Key]string) error {
	var errs []error
	for _, step := range steps(config) {
		if err := client.ConfigureDevice(d.opts.Device, step); err != nil {
			what := "key and port"
			if len(step.Peers) > 0 {
				what = "peer " + names[step.Peers[0].PublicKey]
			}
			errs = append(errs, fmt.Errorf("configure %s of %s: %w", what, d.opts.Device, err))
		}
	}
	return errors.Join(errs...)
}

// Cleanup removes the device, its process and every file but the keys.
func (d *Driver) Cleanup(ctx context.Context) error {
	_, err := d.remove(ctx)
	return errors.Join(err, d.removeFiles())
}
