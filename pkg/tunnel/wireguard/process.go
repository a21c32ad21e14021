package wireguard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ravencni/raven/pkg/tunnel/detached"
)

const (
	// processFile names the device's process inside the state folder.
	processFile = "wireguard.process.json"
	// logFile takes the process's words inside the state folder; the process keeps it short.
	logFile = "wireguard-device.log"
	// endGrace is how long the process has to end by itself before it is told to.
	endGrace = 5 * time.Second
)

// process identifies one process for as long as the machine runs, and never another one that got its number.
type process struct {
	PID int `json:"pid"`
	// StartTicks is field 22 of /proc/<pid>/stat: clock ticks from boot to the start of the process.
	StartTicks uint64 `json:"startTicks"`
	// Executable is what /proc/<pid>/exe pointed at.
	Executable string `json:"executable"`
	// BootID is /proc/sys/kernel/random/boot_id: ticks and numbers of another boot mean nothing.
	BootID string `json:"bootID"`
}

// child is a process that this very agent started.
type child struct {
	process
	handle *os.Process
	// ended is closed when the process has ended and has been reaped; err then holds how.
	ended chan struct{}
	err   error
}

// startProcess starts command detached and records it. A goroutine reaps it and closes ended.
func startProcess(command []string, stateDir string) (*child, error) {
	cmd, err := detached.Start(command, filepath.Join(stateDir, logFile))
	if err != nil {
		return nil, err
	}
	id, idErr := identify(cmd.Process.Pid) // before anybody can reap it
	c := &child{process: id, handle: cmd.Process, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		c.err = cmd.Wait()
	}()
	switch {
	case errors.Is(idErr, os.ErrProcessDone):
		<-c.ended // at once; the caller sees it
		return c, nil
	case idErr == nil:
		idErr = id.record(stateDir)
	}
	if idErr != nil {
		return nil, errors.Join(idErr, c.kill()) // a process that nobody can find again must not stay
	}
	return c, nil
}

// kill ends the child and waits for it.
func (c *child) kill() error {
	err := c.handle.Kill()
	<-c.ended
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// confirm records the child again once it is at work: just after its start it may still show the executable of the
// agent that it was forked from.
func (c *child) confirm(stateDir string) error {
	id, err := identify(c.PID)
	if err != nil || id == c.process {
		return err
	}
	c.process = id
	return id.record(stateDir)
}

// lastWords is the end of the log, for errors.
func lastWords(stateDir string) string {
	text, err := os.ReadFile(filepath.Join(stateDir, logFile))
	if err != nil {
		return err.Error()
	}
	text = bytes.TrimSpace(text)
	return string(text[bytes.LastIndexByte(text, '\n')+1:])
}

func (p process) record(stateDir string) error {
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the WireGuard process: %w", err)
	}
	if err := replaceFile(filepath.Join(stateDir, processFile), append(text, '\n')); err != nil {
		return fmt.Errorf("record the WireGuard process: %w", err)
	}
	return nil
}

// recordedProcess returns the process that was started last, if it still runs, and nil otherwise.
func recordedProcess(stateDir string) (*process, error) {
	path := filepath.Join(stateDir, processFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of the WireGuard process: %w", err)
	}
	var p process
	if json.Unmarshal(text, &p) != nil || !p.alive() {
		return nil, nil // a damaged record names nobody, and the device's deletion ends the process all the same
	}
	return &p, nil
}

// alive tells whether exactly this process still runs; one that has ended and waits to be reaped does not.
func (p process) alive() bool {
	now, err := identify(p.PID)
	return err == nil && now == p
}

// end waits until the process has ended, as it does once its device is deleted, and after endGrace asks it to and at
// last makes it.
func (p process) end(ctx context.Context) error {
	for _, sig := range []os.Signal{nil, syscall.SIGTERM, syscall.SIGKILL} {
		if sig != nil {
			if err := p.signal(sig); err != nil {
				return err
			}
		}
		if err := detached.Await(ctx, endGrace, func() bool { return !p.alive() }); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("the WireGuard process %d does not end", p.PID)
}

// signal reaches this process or nobody: the handle is taken before the identity is checked.
func (p process) signal(sig os.Signal) error {
	handle, err := os.FindProcess(p.PID)
	if err != nil {
		return fmt.Errorf("find the WireGuard process %d: %w", p.PID, err)
	}
	defer handle.Release()
	if !p.alive() {
		return nil
	}
	if err := handle.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to the WireGuard process %d: %w", sig, p.PID, err)
	}
	return nil
}

// identify describes the running process pid; a zombie is none.
func identify(pid int) (process, error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return process{}, fmt.Errorf("read the state of process %d: %w", pid, err)
	}
	// The command name, field 2, is in parentheses and may hold anything, parentheses too; field 3 follows the last one.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return process{}, fmt.Errorf("read the state of process %d: %d fields are too few", pid, len(fields))
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return process{}, fmt.Errorf("process %d has ended: %w", pid, os.ErrProcessDone)
	}
	ticks, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return process{}, fmt.Errorf("read the start time of process %d: %w", pid, err)
	}
	exe, err := os.Readlink(filepath.Join(proc, "exe"))
	if errors.Is(err, fs.ErrNotExist) { // it has given up its memory, and is a zombie in a moment
		return process{}, fmt.Errorf("process %d is ending: %w", pid, os.ErrProcessDone)
	}
	if err != nil {
		return process{}, fmt.Errorf("read the executable of process %d: %w", pid, err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return process{}, fmt.Errorf("read the boot's identity: %w", err)
	}
	// An upgrade of the agent replaces the file under the running process.
	exe = strings.TrimSuffix(exe, " (deleted)")
	return process{PID: pid, StartTicks: ticks, Executable: exe, BootID: strings.TrimSpace(string(boot))}, nil
}
