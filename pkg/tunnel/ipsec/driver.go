package ipsec

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/pkg/tunnel/detached"
	"github.com/ravencni/raven/pkg/tunnel/link"
)

const (
	// Name of the driver in configuration and Plan.
	Name = topology.DriverIPsec
	// defaultStateDir is where the daemon's log lives.
	defaultStateDir = "/var/lib/raven"
	// logFile takes the daemon's words inside the state folder.
	logFile = "ipsec-daemon.log"
	// queueLength in packets of the device: the default of 500 drops bursts.
	queueLength = 1000
	// answerTimeout is how long a new daemon has to answer, and endTimeout how long it has to end: it lets charon say
	// farewell first.
	answerTimeout = 10 * time.Second
	endTimeout    = 2 * charonTimeout
)

// Options configure a Driver; the zero value is what an agent on a plain host wants, but for the secret.
type Options struct {
	// StateDir keeps the daemon's log; empty means /var/lib/raven.
	StateDir string
	// Device names the tunnel device; empty means raven-ipsec0.
	Device string
	// RunDir is the folder of the daemon's sockets; empty means /run/raven/ipsec.
	RunDir string
	// Secret reads the pre-shared key; it is asked in each Apply.
	Secret func() (string, error)
	// Certificates reads what proves the ends by keys of their own; it is asked in each Apply. Nil: the secret proves them.
	Certificates func() (*Certificates, error)
	// Logger of events worth a line; nil means slog's default.
	Logger *slog.Logger
	// Command starts the daemon, which must call RunDaemon for Device and RunDir; empty means the running executable with
	// the arguments ipsec-daemon --device <Device> --run-dir <RunDir>.
	Command []string
	// ESP says what encrypts, to a daemon that the driver starts; empty means ESPAuto.
	ESP ESP
	// External: the daemon is somebody else's, such as a container of its own. The driver then neither starts nor ends it.
	External bool
}

// Driver holds IPsec tunnels to the gateways of other regions. It implements tunnel.Driver.
type Driver struct {
	opts    Options
	log     *slog.Logger
	control control
	// wanted are the peers of the last Apply, for Status.
	wanted []DesiredPeer
	port   int
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
	if opts.RunDir == "" {
		opts.RunDir = DefaultRunDir
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.Secret == nil {
		opts.Secret = func() (string, error) { return "", errNoSecret }
	}
	if !filepath.IsAbs(opts.StateDir) || !filepath.IsAbs(opts.RunDir) {
		return nil, fmt.Errorf("the state folder %q and the run folder %q must be absolute paths", opts.StateDir, opts.RunDir)
	}
	if len(opts.Command) == 0 && !opts.External {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this executable, which also is the IPsec daemon: %w", err)
		}
		opts.Command = []string{self, "ipsec-daemon", "--device", opts.Device, "--run-dir", opts.RunDir}
		if opts.ESP != "" {
			opts.Command = append(opts.Command, "--esp", string(opts.ESP))
		}
	}
	return &Driver{
		opts: opts, log: opts.Logger.With("driver", Name), control: newControl(filepath.Join(opts.RunDir, controlSocket)),
	}, nil
}

// Name is ipsec.
func (d *Driver) Name() string { return Name }

// PublicKey is empty: the ends prove themselves by the secret that they share.
func (d *Driver) PublicKey(context.Context) (string, error) { return "", nil }

// Apply brings the daemon, its charon and the device to plan; it writes only what differs. A plan without a tunnel, or
// with another driver's, ends charon and removes the device.
func (d *Driver) Apply(ctx context.Context, plan *topology.Plan) (tunnel.Result, error) {
	if plan.Tunnel == nil || plan.Tunnel.Driver != "" && plan.Tunnel.Driver != Name {
		changes, err := d.remove(ctx)
		return tunnel.Result{Changes: changes}, err
	}
	secret, certificates, warning, err := d.proofs(plan.Node)
	if err != nil {
		return d.standing(plan), err
	}
	want, errs := desired(plan, secret)
	want.Certificates = certificates
	errs = append(errs, warning)
	d.wanted, d.port = want.Peers, want.Port

	var result tunnel.Result
	n, err := d.ensureDaemon(ctx)
	result.Changes += n
	if err == nil {
		n, err = d.control.apply(ctx, want)
		result.Changes += n
	}
	errs = append(errs, err)
	interfaces, _, err := listInterfaces(d.opts.Device)
	errs = append(errs, err)
	for _, i := range interfaces {
		n, err := d.furnish(i.name, plan)
		result.Changes += n
		errs = append(errs, err)
	}
	if len(interfaces) == 0 {
		n, err := d.furnish(d.opts.Device, plan)
		result.Changes += n
		errs = append(errs, err)
	}
	standing := d.standing(plan)
	result.Device, result.PerPeer = standing.Device, standing.PerPeer
	return result, errors.Join(errs...)
}

// proofs reads what this end proves itself by: a secret or certificates. With a warning they may not do.
func (d *Driver) proofs(node string) (secret string, certificates *Certificates, warning, err error) {
	if d.opts.Certificates == nil {
		secret, err = d.opts.Secret()
		return secret, nil, nil, err
	}
	if certificates, err = d.opts.Certificates(); err != nil {
		return "", nil, nil, err
	}
	valid, warning := certificates.check(node, time.Now())
	if !valid {
		return "", nil, nil, warning
	}
	return "", certificates, warning, nil
}

// furnish gives a device what every tunnel device has; one that is not there is no error.
func (d *Driver) furnish(name string, plan *topology.Plan) (changes int, err error) {
	l, err := link.Find(name)
	if err != nil || l == nil {
		return 0, err
	}
	return link.Apply(l, link.Want{MTU: deviceMTU(plan), TxQueueLen: queueLength, Addresses: link.NodeAddresses(plan)})
}

func deviceMTU(plan *topology.Plan) int { return min(plan.Tunnel.MTU, topology.IPsecMTU) }

// standing is the devices as they are, also where Apply failed before it came to them.
func (d *Driver) standing(plan *topology.Plan) (r tunnel.Result) {
	interfaces, _, err := listInterfaces(d.opts.Device)
	if err != nil {
		return r
	}
	for _, i := range interfaces {
		r.PerPeer = append(r.PerPeer, tunnel.Device{Name: i.name, Index: i.index, MTU: deviceMTU(plan), Peer: i.peer, Decrypts: true})
	}
	if len(interfaces) > 0 {
		return r
	}
	if l, err := link.Find(d.opts.Device); err == nil && l != nil {
		r.Device = tunnel.Device{Name: l.Attrs().Name, Index: l.Attrs().Index, MTU: deviceMTU(plan)}
	}
	return r
}

// ensureDaemon makes sure that a daemon answers.
func (d *Driver) ensureDaemon(ctx context.Context) (changes int, err error) {
	if _, err := d.control.report(ctx); !errors.Is(err, errNoDaemon) {
		return 0, err
	}
	if d.opts.External {
		return 0, fmt.Errorf("%w: see that the process which holds the tunnels (DaemonSet raven-tunnel-ds) runs on this node; "+
			"a pod that an older version started has to be deleted", errNoDaemon)
	}
	log := filepath.Join(d.opts.StateDir, logFile)
	cmd, err := detached.Start(d.opts.Command, log)
	if err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // reaps it; the daemon outlives this agent
	err = detached.Await(ctx, answerTimeout, func() bool {
		if _, err = d.control.report(ctx); err == nil {
			return true
		}
		select {
		case err = <-ended:
			ended <- err
			return true
		default:
			return false
		}
	})
	select {
	case waited := <-ended:
		return 1, fmt.Errorf("the IPsec daemon ended at once (%v): see %s", waited, log)
	default:
	}
	if err != nil {
		return 1, fmt.Errorf("the IPsec daemon %d does not answer: %w; see %s", cmd.Process.Pid, err, log)
	}
	d.log.Info("started the IPsec daemon", "pid", cmd.Process.Pid)
	return 1, nil
}

// remove ends charon, and the daemon where it is ours, and waits until the device has gone.
func (d *Driver) remove(ctx context.Context) (changes int, err error) {
	d.wanted = nil
	if d.opts.External {
		changes, err = d.control.quit(ctx)
	} else {
		changes, err = d.control.end(ctx)
	}
	if errors.Is(err, errNoDaemon) {
		// And hence no charon; devices of the kernel's own may have outlived it.
		return removeInterfaces(d.opts.Device)
	}
	if err != nil {
		return changes, err
	}
	err = detached.Await(ctx, endTimeout, func() bool {
		if l, findErr := link.Find(d.opts.Device); findErr != nil || l != nil {
			return false
		}
		if left, _, listErr := listInterfaces(d.opts.Device); listErr != nil || len(left) > 0 {
			return false
		}
		if _, statErr := os.Stat(filepath.Join(d.opts.RunDir, configFile)); !errors.Is(statErr, fs.ErrNotExist) {
			return false // goes last of all
		}
		_, reportErr := d.control.report(ctx)
		return d.opts.External || errors.Is(reportErr, errNoDaemon)
	})
	if err != nil {
		return changes, fmt.Errorf("wait for the IPsec daemon to end: %w", err)
	}
	return changes, nil
}

// Cleanup ends charon, removes the device and the driver's files.
func (d *Driver) Cleanup(ctx context.Context) error {
	_, err := d.remove(ctx)
	paths := []string{filepath.Join(d.opts.StateDir, logFile), filepath.Join(d.opts.RunDir, controlSocket), d.opts.RunDir, filepath.Dir(d.opts.RunDir)}
	if d.opts.External {
		if _, reportErr := d.control.report(ctx); !errors.Is(reportErr, errNoDaemon) {
			return err // somebody else's process listens there
		}
		paths = paths[1:3] // what is around the run folder is a volume of the container
	}
	for _, path := range paths {
		// Folders that hold something of others' stay.
		if rmErr := os.Remove(path); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) && !errors.Is(rmErr, fs.ErrExist) {
			err = errors.Join(err, fmt.Errorf("clean up after IPsec: %w", rmErr))
		}
	}
	return err
}
