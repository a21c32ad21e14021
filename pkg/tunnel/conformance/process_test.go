package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

// processes are those that hold the host's tunnels: children of this test that run in the host's network namespace under
// the name that the subject has for them.
func (h *host) processes() (pids []int) {
	h.t.Helper()
	var own string
	h.do(func() (err error) {
		own, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	})
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		h.t.Fatal(err)
	}
	for _, entry := range entries {
		ns, err := os.Readlink(filepath.Join(entry, "ns/net"))
		if err != nil || ns != own {
			continue // it has ended, or is another's
		}
		line, err := os.ReadFile(filepath.Join(entry, "cmdline"))
		words := strings.Split(string(line), "\x00")
		if pid, numErr := strconv.Atoi(filepath.Base(entry)); err == nil && numErr == nil && len(words) > 1 && words[1] == h.process && words[0] == h.self {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// kill kills what holds the tunnels and returns what it was.
func (h *host) kill() []int {
	h.t.Helper()
	pids := h.processes()
	if len(pids) == 0 {
		h.t.Fatalf("%s: no process holds the tunnels", h.name)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			h.t.Fatal(err)
		}
	}
	return pids
}

// gone: no device and no process is left.
func (h *host) gone(t *testing.T) {
	t.Helper()
	h.do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if strings.HasPrefix(l.Attrs().Name, "raven") {
				t.Errorf("%s: device %s is left", h.name, l.Attrs().Name)
			}
		}
		return err
	})
	if h.process != "" {
		h.await("the process that held the tunnels to end", func() error {
			if left := h.processes(); len(left) > 0 {
				return fmt.Errorf("%v run", left)
			}
			return nil
		})
	}
}
