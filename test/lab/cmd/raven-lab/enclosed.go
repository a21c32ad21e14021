package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/test/lab"
)

// Descriptors that an enclosed process which may be kept inherits.
const (
	// outcomeFD is the pipe on which it reports that it is done, with its exit status, and stays.
	outcomeFD = 3
	// tetherFD ends with the process outside; until the outcome was reported, the enclosed process ends with it.
	tetherFD = 4
)

// enclosed runs f inside a new enclosure. With keep, the enclosure stays after f has returned nil or an exitStatus;
// `raven-lab down` ends it.
func enclosed(keep bool, f func(ctx context.Context, name string) error) error {
	if lab.Enclosed() {
		// This is the copy: never returns in it.
		os.Exit(lab.Enclose("", func() int { return inside(keep, f) }))
	}
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root: run it with sudo")
	}
	name := newName()
	if !keep {
		if status := lab.Enclose(name, nil); status != 0 {
			return exitStatus(status)
		}
		return nil
	}
	return startKept(name)
}

// startKept runs this program's copy in an enclosure until it reports its outcome.
func startKept(name string) error {
	cmd := lab.Copy(name, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
	outcome, outcomeEnd, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	defer outcome.Close()
	tetherEnd, tether, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	defer tether.Close()
	cmd.ExtraFiles = []*os.File{outcomeEnd, tetherEnd}
	// A session of its own: the terminal's signals must not reach it once it is kept.
	cmd.SysProcAttr.Setsid = true
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("make pid, mount and network namespaces: %w", err)
	}
	stop := lab.ForwardSignals(cmd.Process)
	defer stop()
	if err := errors.Join(outcomeEnd.Close(), tetherEnd.Close()); err != nil {
		return fmt.Errorf("close the pipes' far ends: %w", err)
	}
	line, err := bufio.NewReader(outcome).ReadString('\n')
	if err != nil { // it ended without a word, or with the failure that it printed
		return exitStatus(max(1, lab.ExitStatus(cmd.Wait())))
	}
	if err := lab.Keep(name, cmd.Process.Pid); err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	if _, err := io.WriteString(tether, "stay\n"); err != nil {
		return fmt.Errorf("tell the lab to stay: %w", err)
	}
	var status int
	if _, err := fmt.Sscanf(line, "%d", &status); err != nil {
		return fmt.Errorf("read the lab's outcome %q: %w", line, err)
	}
	fmt.Printf("\nLab %[1]s is up. Look inside:\n"+
		"  %[2]s enter --lab %[1]s hangzhou-2      # a node\n"+
		"  %[2]s enter --lab %[1]s hangzhou-2/a    # a pod on it\n"+
		"  %[2]s enter --lab %[1]s internet        # the router between the regions\n"+
		"  %[2]s down %[1]s                        # end it\n", name, os.Args[0])
	if status != 0 {
		return exitStatus(status)
	}
	return nil
}

// inside is the copy's life.
func inside(keep bool, f func(ctx context.Context, name string) error) int {
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer cancel()
	// There is nothing to tidy up: the kernel ends the lab with this process.
	end := func() {
		fmt.Fprintln(os.Stderr, "\nraven-lab: interrupted; the lab is gone")
		os.Exit(interrupted)
	}
	done := context.AfterFunc(ctx, end)
	if keep {
		unix.CloseOnExec(outcomeFD)
		unix.CloseOnExec(tetherFD)
	}
	status := 0
	if err := f(ctx, os.Getenv("RAVEN_LAB")); err != nil {
		var s exitStatus
		if errors.As(err, &s) {
			status = int(s)
		} else {
			fmt.Fprintln(os.Stderr, "raven-lab:", err)
			return 1
		}
	}
	if !done() {
		select {} // the interruption ends the process
	}
	if ctx.Err() != nil {
		end() // f saw the interruption before the function above did
	}
	if !keep {
		return status
	}
	return stay(status)
}

// interrupted is the exit status of a command that SIGINT ended, as shells give it.
const interrupted = 128 + int(unix.SIGINT)

// stay reports the outcome and then holds the lab until it is killed, or ends where the process outside has gone before
// it recorded the lab.
func stay(status int) int {
	outcome, tether := os.NewFile(outcomeFD, "outcome"), os.NewFile(tetherFD, "tether")
	if _, err := fmt.Fprintln(outcome, status); err != nil {
		return 1
	}
	if _, err := bufio.NewReader(tether).ReadString('\n'); err != nil {
		return 1
	}
	if err := lab.Silence(); err != nil {
		return 1
	}
	select {}
}

func newName() string {
	var b [3]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return "lab-" + hex.EncodeToString(b[:])
}
