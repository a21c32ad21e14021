// Package program is what the main functions of Raven's programs share: signals, mistakes of the caller, exit codes.
package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	ExitFailed = 1
	ExitUsage  = 2
)

// UsageError is a mistake in how the program was called.
type UsageError struct{ Err error }

// Usage makes a UsageError as fmt.Errorf does.
func Usage(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// Error implements error.
func (e UsageError) Error() string { return e.Err.Error() }

// Unwrap is for errors.As.
func (e UsageError) Unwrap() error { return e.Err }

// Run calls run with a context that ends with the first SIGTERM or SIGINT, says its error after the program's name, and
// returns the exit code. A second signal ends the process at once, also where it is a container's first process, which
// signals do not end by themselves.
func Run(name string, stderr io.Writer, run func(context.Context) error) int {
	ctx, done := untilSignal(name, stderr)
	defer done()
	err := run(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "%s: %v\n", name, err)
	if _, usage := errors.AsType[UsageError](err); usage {
		return ExitUsage
	}
	return ExitFailed
}

func untilSignal(name string, stderr io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-signals:
			cancel()
		case <-stop:
			return
		}
		select {
		case s := <-signals:
			code := ExitFailed
			if n, ok := s.(syscall.Signal); ok {
				code = 128 + int(n)
			}
			fmt.Fprintln(stderr, name+": second signal, ending at once")
			os.Exit(code)
		case <-stop:
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(stop)
		<-ended
		cancel()
	}
}
