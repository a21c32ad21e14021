package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// process is a child that dies with this process.
type process struct {
	name   string
	log    string
	child  *os.Process
	ended  chan struct{} // closed when the child was waited for
	err    error         // how it ended; read it after ended
	killed bool
}

// run starts a program whose output goes to a file of its name.
func (c *Cluster) run(name string, args ...string) (*process, error) {
	p := &process{name: name, log: c.file(name + ".log"), ended: make(chan struct{})}
	output, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the log of %s: %w", name, err)
	}
	cmd := exec.Command(filepath.Join(c.binaries, name), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, output, output
	// A group of its own: an interrupt from the keyboard is for the test, which then ends its children in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if c.options.Place != nil {
		cmd.SysProcAttr.Pdeathsig = 0 // the thread that starts it inside ends at once; see Place
	}
	started := make(chan error, 1)
	go func() {
		// Pdeathsig goes by the thread that started the child, so this one stays until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.inside(cmd.Start)
		p.child = cmd.Process
		started <- errors.Join(err, output.Close())
		if err == nil {
			p.err = cmd.Wait()
		}
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// kill ends the child and waits for it. A child that ended before nobody asked it to is an error.
func (p *process) kill() error {
	select {
	case <-p.ended:
		if !p.killed {
			return fmt.Errorf("%s ended by itself: %w\n%s", p.name, p.err, p.tail())
		}
		return nil
	default:
	}
	p.killed = true
	if err := p.child.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", p.name, err)
	}
	<-p.ended
	return nil
}

// tail returns the last lines of the log.
func (p *process) tail() string {
	content, err := os.ReadFile(p.log)
	if err != nil {
		return fmt.Sprintf("(its log cannot be read: %v)", err)
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}
