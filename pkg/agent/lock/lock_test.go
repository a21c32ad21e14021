package lock_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ravencni/raven/pkg/agent/lock"
	"github.com/ravencni/raven/test/netns"
)

// holdIn names, for the test binary that acts as another agent, the state folder whose lock to hold.
const holdIn = "HOLD_LOCK_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdIn); dir != "" {
		if _, err := lock.Acquire(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("held")
		select {} // until it is killed
	}
	os.Exit(m.Run())
}

func acquire(t *testing.T, dir string) *lock.Lock {
	t.Helper()
	l, err := lock.Acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func release(t *testing.T, l *lock.Lock) {
	t.Helper()
	if err := l.Release(); err != nil {
		t.Error(err)
	}
}

func TestTheLockIsRefusedToASecondAgentAndNamesTheFirst(t *testing.T) {
	dir := t.TempDir()
	first := acquire(t, dir)
	for range 3 { // asking who holds it must not use anything up
		_, err := lock.Acquire(dir)
		if want := fmt.Sprintf("process %d ", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("the second agent got %v; want an error that says %q", err, want)
		}
	}
	release(t, first)
	release(t, acquire(t, dir))
}

func TestNothingOfTheLockStaysOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	release(t, acquire(t, dir))
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder that was made for the lock: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	release(t, acquire(t, dir))
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestAKilledAgentsLockIsFree(t *testing.T) {
	dir := t.TempDir()
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), holdIn+"="+dir)
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	word, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || word != "held\n" {
		t.Fatalf("the other agent said %q, %v", word, err)
	}
	if _, err := lock.Acquire(dir); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d ", other.Process.Pid)) {
		t.Errorf("beside another agent: %v", err)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.Wait() // it was killed
	release(t, acquire(t, dir))
}

func TestOfManyThatAskAtOnceOneHoldsTheLock(t *testing.T) {
	dir := t.TempDir()
	var holders, turns atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				l, err := lock.Acquire(dir)
				if err != nil {
					continue
				}
				turns.Add(1)
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d hold the lock", n)
				}
				holders.Add(-1)
				if err := l.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if all.Wait(); turns.Load() == 0 {
		t.Error("nobody ever held it")
	}
}

func TestEachNetworkNamespaceHasALockOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		netns.Run(t, func(t *testing.T) {
			l := acquire(t, dir)
			t.Cleanup(func() { release(t, l) })
		})
	}
}

func TestAnAbstractSocketOfSomebodyElseKeepsNoAgentFromStarting(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		socket, err := net.Listen("unix", "@raven-agent")
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		release(t, acquire(t, t.TempDir()))
	})
}
