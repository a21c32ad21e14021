// Package kernels boots other kernels than the machine's own, and runs Raven's tests there.
//
// The kernels are Debian's cloud images, unpacked into a cache outside the tree. QEMU boots them in software, so no
// hypervisor is needed and nothing of the machine changes: the guest sees the machine's own files read-only through
// virtiofs, writes into a tmpfs laid over them, and has no network card. What a guest runs is one command, and what comes
// back is its output, its exit status and what it reported, through serial ports.
package kernels
