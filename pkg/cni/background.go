package cni

import (
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath/accel/pintree"
)

// accelerateOnly is the argument of a run that an ADD leaves behind to do its work.
const accelerateOnly = "accelerate"

// handedFD is where such a run finds the pod's network namespace, open and locked; its standard input has the
// configuration, its environment the rest.
const handedFD = 3

// Main is the program: a run for the runtime, or one that an ADD left behind.
func Main(about string) {
	if len(os.Args) > 1 && os.Args[1] == accelerateOnly {
		p := Plugin{handed: os.NewFile(handedFD, "the pod's network namespace")}
		p.finish()
		return
	}
	p := Plugin{Background: true}
	skel.PluginMainFuncs(p.Funcs(), Versions, about)
}

// leave starts a run that accelerates the pod after this one has ended, and gives it the lock on the pod's network
// namespace: whoever comes for this pod next waits for it.
func (p *Plugin) leave(c *config, args *skel.CmdArgs) error {
	if _, err := os.Stat(pintree.TreePath(p.root())); err != nil {
		return p.accelerate(c, args) // which says why there is nothing to do
	}
	s, err := openSandbox(args.Netns, addWait)
	if err != nil {
		return err
	}
	defer s.close()
	config, err := inMemory(args.StdinData)
	if err != nil {
		return err
	}
	defer config.Close()
	const nothing = ^uintptr(0)
	// Neither of the outputs is handed on, since the runtime reads them to their ends. The one processor saves the
	// threads that Go would start.
	_, err = syscall.ForkExec("/proc/self/exe", []string{Type, accelerateOnly}, &syscall.ProcAttr{
		Env:   append(os.Environ(), "GOMAXPROCS=1"),
		Files: []uintptr{config.Fd(), nothing, nothing, s.file.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("leave the pod's acceleration to another run: %w", err)
	}
	return nil
}

// sandbox is the pod's network namespace: the one that was handed to this run, or that at the path.
func (p *Plugin) sandbox(path string, wait time.Duration) (*sandbox, error) {
	if p.handed == nil {
		return openSandbox(path, wait)
	}
	s, err := lockSandbox(p.handed, wait)
	if err != nil {
		return nil, err
	}
	s.handed = true
	return s, nil
}

// inMemory is a file with these bytes, to be read from its beginning.
func inMemory(text []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(Type, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "configuration")
	if _, err = f.Write(text); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		_ = f.Close() // what failed before is what counts
		return nil, fmt.Errorf("fill a file in memory: %w", err)
	}
	return f, nil
}

// finish does what an ADD left to this run. Nobody but the log learns how it went.
func (p *Plugin) finish() {
	args := &skel.CmdArgs{ContainerID: os.Getenv("CNI_CONTAINERID"), Netns: os.Getenv("CNI_NETNS"), IfName: os.Getenv("CNI_IFNAME")}
	stdin, err := io.ReadAll(os.Stdin)
	c := &config{}
	if err == nil {
		c, err = parse(stdin)
	}
	if err != nil {
		p.logger(&config{}, "ADD", args).Warn("the pod is left to the kernel's own tables", "error", err)
		return
	}
	p.attempt(c, "ADD", args, p.accelerate)
}
