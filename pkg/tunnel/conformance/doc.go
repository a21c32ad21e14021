// Package conformance holds what is expected of a tunnel driver, whatever encrypts: one table of behaviours that the
// tests of this package put each driver to, WireGuard and IPsec, in the kernel and in user space. Those of the kernel need
// one that has them, as make test-kernels boots.
package conformance

// Driver is a way to carry packets that is held to the table.
type Driver struct {
	// Name is how tests and tables call it.
	Name string
	// Kernel: it is the kernel that encrypts.
	Kernel bool
}

// Drivers are all.
var Drivers = []Driver{
	{Name: "wireguard-userspace"}, {Name: "ipsec-userspace"}, {Name: "wireguard-kernel", Kernel: true}, {Name: "ipsec-kernel", Kernel: true},
}

// Variable is the environment variable that names the drivers to test, with commas between them; without it those are
// tested that need no other kernel and no strongSwan.
const Variable = "RAVEN_TEST_DRIVERS"

// SlowVariable asks for 10 packets a second, for a machine that is slow.
const SlowVariable = "RAVEN_TEST_SLOWLY"

// Behaviours are the names of what every driver does, in the order in which the tests try it.
var Behaviours = []string{
	"reaches-all-by-the-hub", "writes-once", "makes-a-device-as-planned", "carries-its-mtu", "tells-how-peers-are",
	"shows-nothing-on-the-wire", "takes-a-prefix-in", "outlives-its-agent", "drops-one-peer-and-takes-it-back",
	"suffers-a-bad-peer", "says-who-does-not-answer", "moves-to-another-port", "comes-back-after-its-process-died",
	"ends-without-a-plan", "cleans-up",
}
