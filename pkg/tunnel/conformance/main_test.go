package conformance

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/ravencni/raven/pkg/tunnel/ipsec"
	"github.com/ravencni/raven/pkg/tunnel/wireguard"
)

// TestMain lets the test binary be the processes that drivers start: wireguard-device <name>, and ipsec-daemon <run
// folder> <what encrypts>.
func TestMain(m *testing.M) {
	var role func(ctx context.Context, args []string) error
	if len(os.Args) > 2 {
		role = map[string]func(context.Context, []string) error{"wireguard-device": beDevice, "ipsec-daemon": beDaemon}[os.Args[1]]
	}
	if role == nil {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := role(ctx, os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		syscall.Exit(1)
	}
	syscall.Exit(0) // os.Exit lingers for a second under the race detector
}

func beDevice(ctx context.Context, args []string) error {
	return wireguard.RunDevice(ctx, wireguard.DeviceOptions{Name: args[0]})
}

func beDaemon(ctx context.Context, args []string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return ipsec.RunDaemon(ctx, ipsec.DaemonOptions{RunDir: args[0], ESP: ipsec.ESP(args[1]), Logger: log})
}
