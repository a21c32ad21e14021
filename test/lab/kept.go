package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Kept is a lab that stays up after the program that made it has ended. Its record lies in Folder on the machine.
type Kept struct {
	Name string `json:"name"`
	// Pid and Start (in clock ticks since boot, /proc/<pid>/stat) name the process that the whole lab ends with.
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"`
}

func keptFile(name string) string { return filepath.Join(Folder, name+".json") }

// Keep records a running enclosure, so that it can be entered and ended later.
func Keep(name string, pid int) error {
	start, err := startTime(pid)
	if err != nil {
		return err
	}
	b, err := json.Marshal(Kept{Name: name, Pid: pid, Start: start})
	if err != nil {
		return fmt.Errorf("encode the record of lab %s: %w", name, err)
	}
	if err := os.MkdirAll(Folder, 0o755); err != nil {
		return fmt.Errorf("make the folder of kept labs: %w", err)
	}
	if err := os.WriteFile(keptFile(name), b, 0o600); err != nil {
		return fmt.Errorf("record lab %s: %w", name, err)
	}
	return nil
}

// KeptLabs lists the labs that are recorded, running or not, by name.
func KeptLabs() ([]Kept, error) {
	files, err := filepath.Glob(keptFile("*"))
	if err != nil {
		return nil, fmt.Errorf("list kept labs: %w", err)
	}
	var labs []Kept
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the record of a kept lab: %w", err)
		}
		var k Kept
		if err := json.Unmarshal(b, &k); err != nil {
			return nil, fmt.Errorf("read %s: %w; remove the file if no lab runs", file, err)
		}
		labs = append(labs, k)
	}
	slices.SortFunc(labs, func(a, b Kept) int { return strings.Compare(a.Name, b.Name) })
	return labs, nil
}

// Running reports whether the recorded process still is the one that was recorded.
func (k Kept) Running() bool {
	start, err := startTime(k.Pid)
	return err == nil && start == k.Start
}

// End kills the lab, waits until every process of it has ended and removes the record.
func (k Kept) End() error {
	err := k.kill()
	if e := os.Remove(keptFile(k.Name)); e != nil && !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, fmt.Errorf("remove the record of lab %s: %w", k.Name, e))
	}
	// Fails while other labs are kept, as it should.
	_ = os.Remove(Folder)
	return err
}

func (k Kept) kill() error {
	fd, err := unix.PidfdOpen(k.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the process of lab %s: %w", k.Name, err)
	}
	defer unix.Close(fd)
	// The descriptor is bound to one process now; only then does the start time prove that it is ours.
	if !k.Running() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return fmt.Errorf("kill the process of lab %s: %w", k.Name, err)
	}
	for {
		// Readable once the process has ended; the kernel ends all others of its pid namespace first.
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the end of lab %s: %w", k.Name, err)
		}
	}
}

// Enter runs a program on a host of the lab with this process's terminal, and returns its exit status.
func (k Kept) Enter(hostName string, command ...string) (int, error) {
	if !k.Running() {
		return 0, fmt.Errorf("lab %s does not run any more; `raven-lab down %s` removes its record", k.Name, k.Name)
	}
	status := 0
	enclosure := &Host{Name: k.Name, holder: &exec.Cmd{Process: &os.Process{Pid: k.Pid}}}
	if err := enclosure.openNamespaces(); err != nil {
		return 0, err
	}
	err := on(func() error {
		h, err := hostOfKept(hostName)
		if err != nil {
			return err
		}
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = os.Stdin, os.Stdout, os.Stderr, "/"
		cmd.Env = append(os.Environ(), envEnclosed+"="+k.Name, "PS1="+hostName+" \\w # ")
		if err := h.spawn(cmd); err != nil {
			return fmt.Errorf("start %s on %s: %w", command[0], hostName, err)
		}
		status = ExitStatus(cmd.Wait())
		return nil
	}, enclosure.mnt)
	return status, err
}

// hostOfKept finds a host among all labs of the enclosure whose mounts the calling thread sees. A name may be given as
// <lab>:<host> where several labs have such a host.
func hostOfKept(name string) (*Host, error) {
	files, err := filepath.Glob(StateFile("*"))
	if err != nil {
		return nil, fmt.Errorf("list the labs of the enclosure: %w", err)
	}
	var known []string
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read a lab's state: %w", err)
		}
		var s State
		if err := json.Unmarshal(b, &s); err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		for hostName, pid := range s.Holders {
			known = append(known, hostName)
			if name != hostName && name != s.Name+":"+hostName {
				continue
			}
			h := &Host{Name: hostName, holder: &exec.Cmd{Process: &os.Process{Pid: pid}}}
			return h, h.openNamespaces()
		}
	}
	slices.Sort(known)
	return nil, fmt.Errorf("the lab has no host %q; it has: %s", name, strings.Join(known, ", "))
}

// startTime is field 22 of /proc/<pid>/stat, in clock ticks since boot.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read when process %d began: %w", pid, err)
	}
	// The second field is the program's name in parentheses, which may hold anything.
	_, rest, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')'):]), " ")
	fields := strings.Fields(rest)
	const startField = 22 - 3
	if len(fields) <= startField {
		return 0, fmt.Errorf("read when process %d began: %w", pid, syscall.EINVAL)
	}
	start, err := strconv.ParseUint(fields[startField], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read when process %d began: %w", pid, err)
	}
	return start, nil
}
