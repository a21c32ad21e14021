// Package detached starts the processes that hold tunnels and outlive the agent which starts them, and waits for them.
package detached

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Start starts command: a session of its own, no open files but the log, no tie to the caller's life or folder, and of the
// environment only the search path, since the rest may hold secrets. It runs in the namespaces of the calling thread. The
// caller waits for it.
func Start(command []string, logFile string) (*exec.Cmd, error) {
	if err := os.MkdirAll(filepath.Dir(logFile), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the tunnel process's log: %w", err)
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of the tunnel process: %w", err)
	}
	defer log.Close() // the process has its own copy
	// Files that somebody handed to the agent without close-on-exec must not live on in the process. Kernels before 5.11
	// do not know the call; there, what the agent inherited, the process inherits.
	err = unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
	if err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("mark the agent's files close-on-exec: %w", err)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the tunnel process %q: %w", command, err)
	}
	return cmd, nil
}
