package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

// tickNanoseconds is the length of a jiffy: the resolution of the coarse clock.
func tickNanoseconds(t *testing.T) uint32 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &ts); err != nil {
		t.Fatalf("read the tick: %v", err)
	}
	return uint32(ts.Nsec)
}
