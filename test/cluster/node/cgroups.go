package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ravencni/raven/test/lab"
)

// envGroup names the cgroup of one run, in every hierarchy below the group that the run was started in.
const envGroup = "RAVEN_NODES_CGROUP"

// asJanitor is the hidden way to start the program as the one that removes the cgroups of a run.
const asJanitor = "nodes-janitor"

// janitorPatience bounds the wait for the last process of a killed run.
const janitorPatience = 2 * time.Minute

// Enclose is lab.Enclose for a run with nodes. Cgroups do not die with the namespaces, so a process outside of them removes
// those of the run once it has ended, however it ended.
func Enclose(name string, run func() int) int {
	if len(os.Args) == 3 && os.Args[1] == asJanitor {
		if err := clean(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "remove the nodes' cgroups:", err)
			return 1
		}
		return 0
	}
	if lab.Enclosed() || os.Getenv(envGroup) != "" { // a holder of a namespace
		return lab.Enclose(name, run)
	}
	group := fmt.Sprintf("raven-%s-%d", name, os.Getpid())
	end, err := startJanitor(group)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := os.Setenv(envGroup, group); err != nil {
		fmt.Fprintln(os.Stderr, "name the nodes' cgroups:", err)
		return 1
	}
	status := lab.Enclose(name, run)
	if err := end(); err != nil {
		fmt.Fprintln(os.Stderr, "remove the nodes' cgroups:", err)
		return max(status, 1)
	}
	return status
}

// startJanitor starts the janitor, which waits for the end of this process or for end.
func startJanitor(group string) (end func() error, err error) {
	cmd := exec.Command("/proc/self/exe", asJanitor, group)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	alive, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe to the janitor of cgroups: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the janitor of cgroups: %w", err)
	}
	return func() error { return errors.Join(alive.Close(), cmd.Wait()) }, nil
}

// clean waits for the end of standard input and then until no process is left in the group, and removes it.
func clean(group string) error {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return fmt.Errorf("wait for the end of the run: %w", err)
	}
	all, err := hierarchies()
	if err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(janitorPatience); ; <-tick.C {
		var left error
		for _, h := range all {
			left = errors.Join(left, removeGroups(filepath.Join(h.mounted, h.own, group)))
		}
		if left == nil || time.Now().After(deadline) {
			return left
		}
	}
}

// removeGroups removes a group and those below it, the deepest first; one that is not there is no error.
func removeGroups(group string) error {
	entries, err := os.ReadDir(group)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeGroups(filepath.Join(group, e.Name())))
		}
	}
	if err != nil {
		return err
	}
	// The files of a group go with it.
	if err := syscall.Rmdir(group); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove cgroup %s: %w", group, err)
	}
	return nil
}

// hierarchy is one of the machine's cgroup hierarchies of version 1.
type hierarchy struct {
	// options mount it, such as "cpu,cpuacct".
	options string
	// mounted is where it is, for who sees the machine's mounts.
	mounted string
	// own is the group that this process is in.
	own string
}

// name is the folder below /sys/fs/cgroup.
func (h hierarchy) name() string { return strings.TrimPrefix(h.options, "none,name=") }

// hierarchies lists the hierarchies of version 1 that this process is in.
func hierarchies() ([]hierarchy, error) {
	mounts, err := cgroupMounts()
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("read which cgroups this process is in: %w", err)
	}
	var all []hierarchy
	for line := range strings.Lines(string(content)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3) // number:controllers:path
		if len(fields) != 3 || fields[1] == "" {
			continue
		}
		options := fields[1]
		if strings.HasPrefix(options, "name=") {
			options = "none," + options
		}
		all = append(all, hierarchy{options: options, own: fields[2], mounted: mounts[fields[1]]})
	}
	if len(all) == 0 {
		return nil, errors.New("this machine has no cgroup hierarchy of version 1, which the nodes' kubelets are set up for")
	}
	return all, nil
}

// cgroupMounts maps controllers, as /proc/self/cgroup writes them, to where their hierarchy is mounted.
func cgroupMounts() (map[string]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read what is mounted: %w", err)
	}
	defer f.Close()
	mounts := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		before, after, found := strings.Cut(lines.Text(), " - cgroup ")
		fields := strings.Fields(before)
		super := strings.Fields(after)
		if !found || len(fields) < 5 || len(super) < 2 {
			continue
		}
		var controllers []string
		for option := range strings.SplitSeq(super[1], ",") {
			if option != "rw" && option != "ro" && option != "xattr" && !strings.Contains(option, "agent=") {
				controllers = append(controllers, option)
			}
		}
		mounts[strings.Join(controllers, ",")] = fields[4]
	}
	return mounts, nil
}
