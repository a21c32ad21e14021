// Package bpf holds Raven's eBPF programs: one C file per attach point, compiled objects and the Go types of the shared
// maps, both generated.
//
// The pinned compiler is clang-16; `make generate` makes the objects anew, and CI fails where that changes a byte.
package bpf

//go:generate -command program go tool bpf2go -go-package bpf -target bpfel -cc clang-16 -strip llvm-strip-16 -cflags "-O2 -g -Wall -Werror -Wno-unused-function -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -fdebug-prefix-map=$PWD=."
//go:generate program -type raven_flag -type raven_member -type raven_scope -type raven_nexthop_kind -type raven_nexthop_flag -type raven_reason FromPod raven_from_pod.c
//go:generate program -no-global-types FromOverlay raven_from_overlay.c
//go:generate program -no-global-types FromTunnel raven_from_tunnel.c
//go:generate program -no-global-types FromUnderlay raven_from_underlay.c
//go:generate program -no-global-types XdpUnderlay raven_xdp_underlay.c
