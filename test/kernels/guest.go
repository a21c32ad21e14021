package kernels

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// BecomeInitIfAsked makes this process the init of a guest where the kernel started it as such, and then does not return.
// A main function calls it first.
func BecomeInitIfAsked() {
	if os.Getpid() != 1 || os.Args[0] != "/init" {
		return
	}
	if _, err := os.Stat(pathJob); err != nil {
		return
	}
	r := serve()
	if err := answer(r); err != nil {
		fmt.Fprintln(os.Stderr, "raven-kernels:", err)
	}
	// Only a machine that is switched off lets QEMU end.
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, "raven-kernels: switch off:", err)
	}
	os.Exit(1) // the kernel panics and, by panic=-1, ends QEMU
}

func answer(r guestResult) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := openPort(portResult)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	return errors.Join(err, f.Close()) // closing waits until all has gone out
}

func serve() guestResult {
	var r guestResult
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		r.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	job, err := start()
	if err == nil && job.Version != r.Kernel {
		err = fmt.Errorf("this is kernel %s and should be %s", r.Kernel, job.Version)
	}
	if err == nil {
		r.Status, err = job.run()
	}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func mountAll(mounts []mount) error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return fmt.Errorf("make the mount point %s: %w", m.target, err)
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s at %s: %w", m.kind, m.target, err)
		}
	}
	return nil
}

// start brings the guest to where a command can run: the machine's files below a tmpfs as root, and what systems have
// mounted.
func start() (guestJob, error) {
	var job guestJob
	if err := mountAll([]mount{{source: "devtmpfs", target: "/dev", kind: "devtmpfs"}}); err != nil &&
		!errors.Is(err, unix.EBUSY) {
		return job, err
	}
	b, err := os.ReadFile(pathJob)
	if err != nil {
		return job, fmt.Errorf("read the job: %w", err)
	}
	if err := json.Unmarshal(b, &job); err != nil {
		return job, fmt.Errorf("read the job: %w", err)
	}
	for _, m := range job.Boot {
		if err := load(filepath.Join(pathModules, m)); err != nil {
			return job, err
		}
	}
	if err := mountAll([]mount{
		{rootTag, "/lower", "virtiofs", unix.MS_RDONLY, ""},
		{"tmpfs", "/upper", "tmpfs", 0, "mode=755"},
	}); err != nil {
		return job, err
	}
	for _, d := range []string{"/upper/files", "/upper/work"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return job, fmt.Errorf("make the writable layer: %w", err)
		}
	}
	if err := mountAll([]mount{{"overlay", "/root", "overlay", 0, "lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work"}}); err != nil {
		return job, err
	}
	if err := os.Chdir("/root"); err != nil {
		return job, fmt.Errorf("enter the root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return job, fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return job, fmt.Errorf("change the root: %w", err)
	}
	return job, mountAll([]mount{
		{"proc", "/proc", "proc", 0, ""},
		{"sysfs", "/sys", "sysfs", 0, ""},
		{"devtmpfs", "/dev", "devtmpfs", 0, ""},
		{"devpts", "/dev/pts", "devpts", 0, ""},
		{"tmpfs", "/dev/shm", "tmpfs", 0, ""},
		{"tmpfs", "/run", "tmpfs", 0, "mode=755"},
		{"tmpfs", "/tmp", "tmpfs", 0, "mode=1777"},
		{"tmpfs", "/var/lib/raven", "tmpfs", 0, "mode=755"},
		{"bpf", "/sys/fs/bpf", "bpf", 0, ""},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""},
		{"tracefs", "/sys/kernel/tracing", "tracefs", 0, ""},
	})
}

// load hands a module's file to the kernel, which unpacks it where it is compressed.
func load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("open a module: %w", err)
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(file, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	if err := unix.FinitModule(int(f.Fd()), "", flags); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", filepath.Base(file), err)
	}
	return nil
}

// run runs the job's command and returns its exit status.
func (j guestJob) run() (int, error) {
	if err := os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
		return 0, err
	}
	// modprobe, which the kernel calls as well, looks there.
	if err := os.MkdirAll("/lib/modules", 0o755); err != nil {
		return 0, fmt.Errorf("make the folder of modules: %w", err)
	}
	if err := os.Symlink(j.Tree, filepath.Join("/lib/modules", j.Version)); err != nil {
		return 0, fmt.Errorf("show the modules: %w", err)
	}
	ctx := context.Background() // QEMU's life bounds all of this
	for _, m := range j.Modules {
		if out, err := exec.CommandContext(ctx, "modprobe", m).CombinedOutput(); err != nil {
			return 0, fmt.Errorf("modprobe %s: %w: %s", m, err, out)
		}
	}
	if out, err := exec.CommandContext(ctx, "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("set the loopback device up: %w: %s", err, out)
	}
	port, err := openPort(portOutput)
	if err != nil {
		return 0, err
	}
	defer port.Close()
	if report, err := openPort(portReport); err != nil { // leaves it raw for the command
		return 0, err
	} else if err := report.Close(); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, j.Command[0], j.Command[1:]...)
	cmd.Dir = j.Dir
	cmd.Env = slices.Concat([]string{"PATH=" + os.Getenv("PATH"), "HOME=/root", ReportVariable + "=" + portReport}, j.Env)
	cmd.Stdout, cmd.Stderr = port, port
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", cmd, err)
	}
	return 0, nil
}

// openPort opens a serial port that passes bytes on as they are.
func openPort(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open port %s: %w", name, err)
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err == nil {
		t.Oflag &^= unix.OPOST
		t.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG
		t.Cflag = t.Cflag&^unix.CBAUD | unix.B115200
		err = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set port %s up: %w", name, err), f.Close())
	}
	return f, nil
}
