package wireguard

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
)

// TestMain lets the test binary serve a userspace device, as raven-agent does with the same arguments.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "wireguard-device" && os.Args[2] == "--name" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := RunDevice(ctx, DeviceOptions{Name: os.Args[3]}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}
