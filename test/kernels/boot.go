package kernels

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// virtiofsd of Debian 12's QEMU; later releases have it in a package of its own.
var virtiofsd = []string{"/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"}

// Run boots k, runs job and returns what came of it. Live output goes to progress while it comes. The error says why
// there is no outcome: a kernel that did not boot, panicked or took longer than the limit, with the end of its console.
func (k Kernel) Run(ctx context.Context, job Job, progress io.Writer) (Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, job.Limit)
	defer cancel()
	work, err := os.MkdirTemp("", "raven-kernels-")
	if err != nil {
		return Outcome{}, fmt.Errorf("make a folder for a guest: %w", err)
	}
	defer os.RemoveAll(work)
	start := time.Now()
	initrd, err := k.firstRoot(work, job)
	if err != nil {
		return Outcome{}, fmt.Errorf("make the first root of %s: %w", k.Version, err)
	}
	var served bytes.Buffer
	server, socket, err := serveFiles(ctx, work, &served)
	if err != nil {
		return Outcome{}, err
	}
	defer func() { _ = server.Wait() }() // it ends with the guest, or by the context
	defer cancel()
	var said bytes.Buffer
	guest := k.machine(ctx, work, socket, initrd, job)
	guest.Stdout = io.MultiWriter(&said, progress)
	guest.Stderr = guest.Stdout
	runErr := guest.Run()
	outcome := Outcome{Output: said.String(), Took: time.Since(start)}
	result, err := os.ReadFile(filepath.Join(work, "result"))
	if err == nil {
		var r guestResult
		if err = json.Unmarshal(result, &r); err == nil {
			if r.Error != "" {
				return outcome, fmt.Errorf("the guest with kernel %s: %s", r.Kernel, r.Error)
			}
			outcome.Status, outcome.Kernel = r.Status, r.Kernel
			report, err := os.ReadFile(filepath.Join(work, "report"))
			outcome.Report = string(report)
			return outcome, err
		}
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("no result within %s: %w", job.Limit, ctx.Err())
	}
	console, _ := os.ReadFile(filepath.Join(work, "console")) // may not have been made
	return outcome, fmt.Errorf("%s gave no result: %w\nconsole: %s\nfile server: %s", k.Version, errors.Join(err, runErr),
		tail(string(console), 60), served.String())
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// serveFiles starts a server of the machine's root for one guest, in a mount namespace where that root is read-only.
func serveFiles(ctx context.Context, work string, log io.Writer) (*exec.Cmd, string, error) {
	var program string
	for _, p := range virtiofsd {
		if _, err := os.Stat(p); err == nil {
			program = p
		}
	}
	if program == "" {
		return nil, "", fmt.Errorf("there is no virtiofsd at %s", strings.Join(virtiofsd, " or "))
	}
	// It gets a socket that listens already, so that QEMU need not wait for it.
	socket := filepath.Join(work, "files.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, "", fmt.Errorf("listen for the guest: %w", err)
	}
	defer listener.Close()
	listener.SetUnlinkOnClose(false)
	file, err := listener.File()
	if err != nil {
		return nil, "", fmt.Errorf("hand over the guest's socket: %w", err)
	}
	defer file.Close()
	const firstExtraFile = 3
	cmd := exec.CommandContext(ctx, program, fmt.Sprintf("--fd=%d", firstExtraFile), "--rlimit-nofile=0", "-o", "source=/",
		"-o", "sandbox=chroot", "-o", "cache=always", "-o", "no_posix_lock")
	cmd.ExtraFiles = []*os.File{file}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("start %s: %w", cmd, err)
	}
	return cmd, socket, nil
}

// machine is QEMU with nothing but a processor, memory, four serial ports and the file server.
func (k Kernel) machine(ctx context.Context, work, socket, initrd string, job Job) *exec.Cmd {
	memory := strconv.Itoa(max(job.Memory, 1024)) + "M"
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-accel", "tcg", "-cpu", "max,-cx16",
		"-icount", "shift=0", "-m", memory,
		"-object", "memory-backend-memfd,id=memory,share=on,size=" + memory, "-numa", "node,memdev=memory",
		"-kernel", k.image(), "-initrd", initrd,
		"-append", "console=ttyS0 panic=-1 quiet loglevel=4 mitigations=off random.trust_cpu=on",
		"-chardev", "socket,id=files,path=" + socket, "-device", "vhost-user-fs-pci,chardev=files,tag=" + rootTag,
		"-serial", "file:" + filepath.Join(work, "console"),
		"-chardev", "stdio,id=output,signal=off", "-serial", "chardev:output",
		"-serial", "file:" + filepath.Join(work, "result"),
		"-serial", "file:" + filepath.Join(work, "report"),
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return cmd
}

// firstRoot writes the archive that the kernel starts from: this very program as its init, the modules that it needs to
// see the machine's files, and the job.
func (k Kernel) firstRoot(work string, job Job) (string, error) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return "", err
	}
	// virtio_pci is what the file server is connected by.
	modules, err := k.closure("virtio_pci", "virtiofs", "overlay")
	if err != nil {
		return "", err
	}
	g := guestJob{Job: job, Version: k.Version, Tree: k.modules()}
	name := filepath.Join(work, "initrd")
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	a := &archive{w: f}
	for _, d := range []string{"dev", "proc", "sys", "lower", "upper", "root", pathModules[1:]} {
		a.folder(d)
	}
	a.file("init", self)
	for _, m := range modules {
		body, err := os.ReadFile(filepath.Join(k.modules(), m))
		if err != nil {
			return "", err
		}
		a.file(pathModules[1:]+"/"+filepath.Base(m), body)
		g.Boot = append(g.Boot, filepath.Base(m))
	}
	b, err := json.Marshal(g)
	if err != nil {
		return "", err
	}
	a.file(pathJob[1:], b)
	return name, errors.Join(a.close(), f.Close())
}
