package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
)

func TestTheExitCodeTellsAMistakeOfTheCallerFromAFailure(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		says string
	}{
		{nil, 0, ""},
		{errors.New("no such node"), ExitFailed, "raven-x: no such node\n"},
		{fmt.Errorf("read the flags: %w", UsageError{errors.New("no --node")}), ExitUsage, "raven-x: read the flags: no --node\n"},
	} {
		var said bytes.Buffer
		if code := Run("raven-x", &said, func(context.Context) error { return c.err }); code != c.code || said.String() != c.says {
			t.Errorf("%v: code %d, says %q", c.err, code, said.String())
		}
	}
}

func TestASignalEndsTheContext(t *testing.T) {
	var said bytes.Buffer
	code := Run("raven-x", &said, func(ctx context.Context) error {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	})
	if code != 0 || said.Len() > 0 {
		t.Errorf("code %d, says %q", code, said.String())
	}
}
