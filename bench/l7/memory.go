package l7

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/ravencni/raven/test/lab"
)

// anonymous is the memory of each process that is its own, in bytes: RssAnon of /proc/PID/status. Buffers of sockets are
// the kernel's and not in it.
func anonymous(processes []*lab.Process) ([]int64, error) {
	var all []int64
	for _, p := range processes {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid))
		if err != nil {
			return nil, fmt.Errorf("read a proxy's memory: %w", err)
		}
		_, rest, ok := strings.Cut(string(text), "RssAnon:")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 2 || fields[1] != "kB" {
			return nil, fmt.Errorf("/proc/%d/status tells no RssAnon in kB", p.Pid)
		}
		n, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read a proxy's memory: %w", err)
		}
		all = append(all, n<<10)
	}
	return all, nil
}
