package bench

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Machine names the kernel's release and counts the CPUs.
func Machine() (kernel string, cpus int) {
	var u unix.Utsname
	// It cannot fail with a valid pointer; an empty name would say that it did.
	_ = unix.Uname(&u)
	return unix.ByteSliceToString(u.Release[:]), runtime.NumCPU()
}
