package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// userHz is the unit of /proc/stat (USER_HZ, 100 on every architecture that Linux runs containers on).
const userHz = 100

// busySeconds is the time that all CPUs of the machine have spent on anything but idling and waiting for disks.
func busySeconds() (float64, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read the machine's CPU time: %w", err)
	}
	line, err := bufio.NewReader(bytes.NewReader(stat)).ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("read /proc/stat: %w", err)
	}
	// cpu user nice system idle iowait irq softirq steal guest guest_nice
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q, not with the sum of all CPUs", line)
	}
	var ticks float64
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return 0, fmt.Errorf("read /proc/stat: %w", err)
		}
		ticks += n
	}
	return ticks / userHz, nil
}

// whileBusy runs f and returns the CPU seconds that the whole machine spent meanwhile.
func whileBusy(f func() error) (float64, error) {
	before, err := busySeconds()
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := busySeconds()
	return after - before, err
}
