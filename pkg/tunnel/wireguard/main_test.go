package wireguard

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/ravencni/raven/pkg/topology"
)

// TestMain lets the test binary be the processes that the tests need: a userspace device, started with the arguments
// that raven-agent takes, one that serves on request, and an agent that applies one plan and waits to be killed.
func TestMain(m *testing.M) {
	var role func(args []string) error
	if len(os.Args) > 1 {
		role = map[string]func([]string) error{"wireguard-device": serveDevice, "hold": hold, "agent": beAgent}[os.Args[1]]
	}
	if role == nil {
		os.Exit(m.Run())
	}
	if err := role(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		syscall.Exit(1)
	}
	syscall.Exit(0) // os.Exit lingers for a second under the race detector
}

func serveDevice(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return RunDevice(ctx, DeviceOptions{Name: args[1]})
}

func hold(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return Hold(ctx, HoldOptions{StateDir: args[0]})
}

func beAgent(args []string) error {
	var plan topology.Plan
	if err := json.Unmarshal([]byte(args[1]), &plan); err != nil {
		return err
	}
	d, err := New(Options{StateDir: args[0], Userspace: true})
	if err != nil {
		return err
	}
	if _, err := d.Apply(context.Background(), &plan); err != nil {
		return err
	}
	fmt.Println("applied")
	select {}
}
