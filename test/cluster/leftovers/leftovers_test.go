package leftovers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ravencni/raven/test/cluster"
)

// server is a control plane that is alive meanwhile.
var server *cluster.Cluster

// childOf, in the environment, makes this test program start a control plane, say where it is, and wait to be killed.
const childOf = "RAVEN_TEST_CLUSTER_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childOf) != "" {
		os.Exit(beKilled())
	}
	os.Exit(cluster.Main(m, &server, cluster.Options{}))
}

func beKilled() int {
	c, err := cluster.Start(context.Background(), cluster.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(c.Admin().Host, c.AdminKubeconfig())
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the parent ends
	return 1
}

func TestAControlPlaneWhoseOwnerIsKilledLeavesNothingBehind(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childOf+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	in, err := cmd.StdinPipe()
	must(t, err)
	defer in.Close()
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	host, kubeconfig, _ := strings.Cut(strings.TrimSpace(line), " ")
	address, err := url.Parse(host)
	must(t, err)
	if ip, _, err := net.SplitHostPort(address.Host); err != nil || ip != "127.0.0.1" {
		t.Errorf("the API server is at %s, want the loopback", host)
	}
	children := childrenOf(t, cmd.Process.Pid)
	if len(children) != 3 {
		t.Fatalf("the control plane has the processes %v, want three", children)
	}

	must(t, cmd.Process.Signal(syscall.SIGKILL))
	_ = cmd.Wait() // says only that it was killed
	for _, pid := range children {
		awaitEnd(t, pid)
	}
	// The next control plane takes the folder away.
	c, err := cluster.Start(t.Context(), cluster.Options{})
	must(t, err)
	if _, err := os.Stat(filepath.Dir(kubeconfig)); !os.IsNotExist(err) {
		t.Errorf("the folder of the killed one is still there: %v", err)
	}
	own := filepath.Dir(c.AdminKubeconfig())
	must(t, c.Stop())
	if _, err := os.Stat(own); !os.IsNotExist(err) {
		t.Errorf("the folder of the stopped one is still there: %v", err)
	}
	if _, err := os.Stat(server.AdminKubeconfig()); err != nil {
		t.Errorf("the folder of one that is alive: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// awaitEnd waits until a process is no more.
func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for syscall.Kill(pid, 0) != syscall.ESRCH && !isZombie(pid) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("process %d of the control plane lives on", pid)
		}
	}
}

// childrenOf lists the processes that one has started.
func childrenOf(t *testing.T, parent int) (pids []int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	must(t, err)
	for _, file := range tasks {
		content, err := os.ReadFile(file)
		must(t, err)
		for _, field := range strings.Fields(string(content)) {
			pid, err := strconv.Atoi(field)
			must(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

// isZombie: ended, and not waited for by whoever inherited it.
func isZombie(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
	}
	_, rest, _ := strings.Cut(string(status), ") ")
	return strings.HasPrefix(rest, "Z")
}
