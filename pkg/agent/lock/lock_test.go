package lock_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/ravencni/raven/pkg/agent/lock"
	"github.com/ravencni/raven/test/netns"
)

func TestTheLockIsRefusedToASecondAgentAndNamesTheFirst(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		first, err := lock.Acquire()
		if err != nil {
			t.Fatal(err)
		}
		for range 3 { // asking who holds it must not use anything up
			_, err = lock.Acquire()
			if want := fmt.Sprintf("process %d of user 0", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("the second agent got %v; want an error that says %q", err, want)
			}
		}
		if err := first.Release(); err != nil {
			t.Fatal(err)
		}
		again, err := lock.Acquire()
		if err != nil {
			t.Fatalf("the lock is free again, but: %v", err)
		}
		if err := again.Release(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestEachNetworkNamespaceHasALockOfItsOwn(t *testing.T) {
	for range 2 {
		netns.Run(t, func(t *testing.T) {
			l, err := lock.Acquire()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := l.Release(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
