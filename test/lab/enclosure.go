package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// envEnclosed marks every process of a lab with the lab's name; tests that look for left-overs search for it.
const envEnclosed = "RAVEN_LAB"

// Folder is where a lab's own files (manifests, logs, state of its nodes) lie, inside the enclosure and on its nodes.
const Folder = "/run/raven-lab"

func init() {
	// The main goroutine keeps the process's first thread, so that no goroutine that visits another namespace ever
	// takes it along: /proc/self speaks of that thread.
	runtime.LockOSThread()
}

// Enclosed reports whether this process lives in the namespaces that Enclose makes.
func Enclosed() bool { return os.Getenv(envEnclosed) != "" && os.Getpid() == 1 }

// Enclose runs run in a copy of this very process (same program, same arguments) that lives in new pid, mount, network
// and UTS namespaces, and returns its exit status. In that copy Enclose prepares the namespaces, calls run and returns
// its result. Call it from the main goroutine before anything else: the processes that hold a lab's namespaces are
// copies of the program as well and never come back from here.
func Enclose(name string, run func() int) int {
	BecomeHolderIfAsked()
	if Enclosed() {
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, "raven-lab: prepare the enclosure:", err)
			return 1
		}
		return run()
	}
	cmd := Copy(name, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "raven-lab: make pid, mount and network namespaces (this needs root):", err)
		return 1
	}
	stop := ForwardSignals(cmd.Process)
	defer stop()
	return ExitStatus(cmd.Wait())
}

// Copy is a command that starts this program again inside a new enclosure. The caller decides about its files and
// about Pdeathsig.
func Copy(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), envEnclosed+"="+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS,
	}
	return cmd
}

// ForwardSignals hands the signals that ask this process to end on to p, until the returned function is called.
func ForwardSignals(p *os.Process) (stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := range signals {
			// The process may have ended already; there is nobody left to tell then.
			_ = p.Signal(s)
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}

// ExitStatus turns the error of exec.Cmd's Wait into an exit status as a shell reports it.
func ExitStatus(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal())
		}
		return exit.ExitCode()
	default:
		fmt.Fprintln(os.Stderr, "raven-lab:", err)
		return 1
	}
}

// furnish gives the enclosure its own /proc, /sys and /run.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, m := range []struct{ kind, at string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/run"}} {
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s at %s: %w", m.kind, m.at, err)
		}
	}
	if err := os.Mkdir(Folder, 0o755); err != nil {
		return fmt.Errorf("make the lab's folder: %w", err)
	}
	return loopbackUp()
}
