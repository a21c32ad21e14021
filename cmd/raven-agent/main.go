// Command raven-agent is the node daemon: it joins this node to its region and its region to the others.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a mistake in how the command was called.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func main() {
	ctx, done := untilSignal()
	defer done()
	err := newCommand(os.Stdout, os.Stderr).run(ctx, os.Args[1:])
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "raven-agent: %v\n", err)
	var usage usageError
	if errors.As(err, &usage) {
		os.Exit(exitUsage)
	}
	os.Exit(exitFailed)
}

// untilSignal returns a context that ends with the first SIGTERM or SIGINT; a second one ends the process at once.
func untilSignal() (context.Context, func()) {
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
			code := exitFailed
			if n, ok := s.(syscall.Signal); ok {
				code = 128 + int(n)
			}
			fmt.Fprintln(os.Stderr, "raven-agent: second signal, ending at once")
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
