package lab

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The hidden ways to start the program: they hold namespaces and do nothing else.
const (
	holdNode  = "lab-hold-node"
	holdPause = "lab-hold-pause"
)

// BecomeHolderIfAsked never returns in a process that was started to hold a namespace. Every program that starts labs
// calls it first of all.
func BecomeHolderIfAsked() {
	if len(os.Args) < 2 {
		return
	}
	var err error
	switch os.Args[1] {
	case holdNode:
		err = furnishNode(os.Args[2], os.Args[3], os.Args[4] == "true")
	case holdPause:
		err = loopbackUp()
	default:
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "raven-lab: hold a namespace:", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	if err := Silence(); err != nil {
		fmt.Fprintln(os.Stderr, "raven-lab: hold a namespace:", err)
		os.Exit(1)
	}
	reapForever()
}

// reapForever does what an init must: collect the orphans of its pid namespace.
func reapForever() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	for {
		for pid := 1; pid > 0; {
			// An error means that there is no child now; 0 that none has ended.
			pid, _ = unix.Wait4(-1, nil, unix.WNOHANG, nil)
		}
		<-children
	}
}

// Silence gives up this process's standard output and error, so that whoever reads them sees their end.
func Silence() error {
	null, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("give up standard output: %w", err)
	}
	defer null.Close()
	for _, fd := range []int{1, 2} {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return fmt.Errorf("give up standard output: %w", err)
		}
	}
	return nil
}

// furnishNode makes the mounts of a node: its own /proc, /sys and bpffs, empty /run, /tmp and /var/lib, the lab's
// folder where it is everywhere, and the node's lasting state folder (which survives a reboot) as /var/lib/raven. With disk
// all of that lies on a root file system of the node's own.
func furnishNode(name, state string, disk bool) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set the host name %s: %w", name, err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	folder, err := unix.Open(Folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", Folder, err)
	}
	defer unix.Close(folder)
	root := ""
	if disk {
		if root, err = makeDisk(); err != nil {
			return err
		}
	}
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"bpf", "/sys/fs/bpf"},
		{"tmpfs", "/run"}, {"tmpfs", "/tmp"}, {"tmpfs", "/var/lib"},
	} {
		if err := unix.Mount(m.kind, root+m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s at %s: %w", m.kind, m.at, err)
		}
	}
	for _, b := range []struct{ from, at string }{
		{fmt.Sprintf("/proc/self/fd/%d", folder), Folder},
		{state, "/var/lib/raven"},
	} {
		if b.from == "" {
			continue
		}
		if err := os.MkdirAll(root+b.at, 0o700); err != nil {
			return fmt.Errorf("make %s: %w", b.at, err)
		}
		if err := unix.Mount(b.from, root+b.at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s to %s: %w", filepath.Base(b.from), b.at, err)
		}
	}
	if disk {
		if err := enterDisk(root); err != nil {
			return err
		}
	}
	return loopbackUp()
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket to set loopback up: %w", err)
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("name loopback: %w", err)
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("set loopback up: %w", err)
	}
	return nil
}
