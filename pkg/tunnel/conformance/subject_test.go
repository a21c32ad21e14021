package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/pkg/tunnel"
	"github.com/ravencni/raven/pkg/tunnel/ipsec"
	"github.com/ravencni/raven/pkg/tunnel/wireguard"
)

// subject is how a driver is made for a test.
type subject struct {
	Driver
	protocol string
	// process says what the command line of the process begins with that holds the tunnels; empty: none does.
	process string
	// make makes the driver of a host whose files lie in dir.
	make func(self, dir string) (tunnel.Driver, error)
}

func subjectOf(t *testing.T, d Driver) subject {
	t.Helper()
	s := subject{Driver: d}
	switch {
	case strings.HasPrefix(d.Name, "wireguard"):
		s.protocol = topology.DriverWireGuard
		if !d.Kernel {
			s.process = "wireguard-device"
		}
		s.make = func(self, dir string) (tunnel.Driver, error) {
			return wireguard.New(wireguard.Options{
				StateDir: filepath.Join(dir, "state"), Userspace: !d.Kernel, Command: []string{self, "wireguard-device", wireguard.DefaultDevice},
			})
		}
	default:
		s.protocol, s.process = topology.DriverIPsec, "ipsec-daemon"
		esp := ipsec.ESPUserspace
		if d.Kernel {
			esp = ipsec.ESPKernel
		}
		if _, err := exec.LookPath("charon-systemd"); err != nil {
			t.Fatalf("IPsec needs strongSwan: %v", err)
		}
		s.make = func(self, dir string) (tunnel.Driver, error) {
			run := filepath.Join(dir, "raven", "ipsec")
			return ipsec.New(ipsec.Options{
				StateDir: filepath.Join(dir, "state"), RunDir: run, Secret: ipsec.Secret("", "the secret of this test"),
				Command: []string{self, "ipsec-daemon", run, string(esp)},
			})
		}
	}
	return s
}

// chosen says whether a driver is to be tested here.
func chosen(d Driver) bool {
	names, told := os.LookupEnv(Variable)
	if !told {
		return d.Name == "wireguard-userspace"
	}
	return slices.Contains(strings.Split(names, ","), d.Name)
}
