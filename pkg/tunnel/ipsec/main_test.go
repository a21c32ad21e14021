package ipsec

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"testing"
)

// TestMain lets the test binary be the daemon that the tests need: ipsec-daemon <run folder>.
func TestMain(m *testing.M) {
	if len(os.Args) < 3 || os.Args[1] != "ipsec-daemon" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if err := RunDaemon(ctx, DaemonOptions{RunDir: os.Args[2], Logger: log, ESP: ESP(os.Getenv("RAVEN_TEST_IPSEC_ESP"))}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		syscall.Exit(1)
	}
	syscall.Exit(0) // os.Exit lingers for a second under the race detector
}
