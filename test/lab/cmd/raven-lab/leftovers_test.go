package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/test/lab"
)

// asCommand makes the test binary behave as raven-lab.
const asCommand = "RAVEN_LAB_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

// command runs raven-lab with its output going to out.
func command(ctx context.Context, t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make namespaces")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), asCommand+"=1", mark(t))
	return cmd, &out
}

// mark is an environment variable that every process of a test's labs inherits.
func mark(t *testing.T) string {
	return fmt.Sprintf("RAVEN_LAB_TEST_MARK=%s/%d", t.Name(), os.Getpid())
}

// machine is everything of the machine that a lab might leave something in.
func machine(t *testing.T) map[string]string {
	t.Helper()
	state := map[string]string{}
	for what, args := range map[string][]string{
		"links": {"ip", "-d", "link"}, "addresses": {"ip", "-br", "address"},
		"routes": {"ip", "route", "show", "table", "all"}, "IPv6 routes": {"ip", "-6", "route", "show", "table", "all"},
		"rules": {"ip", "rule"}, "IPv6 rules": {"ip", "-6", "rule"}, "nft": {"nft", "list", "ruleset"},
	} {
		out, err := exec.Command(args[0], args[1:]...).Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		// Lifetimes count down by themselves.
		state[what] = regexp.MustCompile(`(expires|valid_lft|preferred_lft) \S+`).ReplaceAllString(string(out), "")
	}
	for what, path := range map[string]string{"mounts": "/proc/self/mountinfo", "forwarding": "/proc/sys/net/ipv4/ip_forward"} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		state[what] = string(b)
	}
	state["pinned BPF objects"] = strings.Join(glob(t, "/sys/fs/bpf/*"), " ")
	var groups []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		// Others make groups at any time; a lab's would bear its name.
		if err == nil && d.IsDir() && strings.Contains(path, "lab") {
			groups = append(groups, path)
		}
		return nil // a group may vanish while we look
	})
	if err != nil {
		t.Fatal(err)
	}
	state["cgroups"] = strings.Join(groups, "\n")
	return state
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// processes lists those with the test's mark in their environment, as "pid command".
func processes(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, file := range glob(t, "/proc/[0-9]*/environ") {
		environ, err := os.ReadFile(file)
		if err != nil {
			continue // ended meanwhile
		}
		if slices.Contains(strings.Split(string(environ), "\x00"), mark(t)) {
			cmdline, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
			if err != nil {
				continue
			}
			found = append(found, filepath.Base(filepath.Dir(file))+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return found
}

// nothingLeft compares the machine with what it was and looks for processes of the test's labs, and for files of those
// named.
func nothingLeft(t *testing.T, before map[string]string, names ...string) {
	t.Helper()
	if diff := cmp.Diff(before, machine(t)); diff != "" {
		t.Errorf("the machine is not as it was (-before +after):\n%s", diff)
	}
	if left := processes(t); len(left) > 0 {
		t.Errorf("processes of the lab are left: %v", left)
	}
	for _, name := range names {
		if left := glob(t, lab.Folder+"/*"+name+"*"); len(left) > 0 {
			t.Errorf("files of the lab are left: %v", left)
		}
	}
}

var labName = regexp.MustCompile(`lab-[0-9a-f]{6}`)

// awaitUp waits until the command has said that its lab stands and returns the lab's name.
func awaitUp(ctx context.Context, t *testing.T, sign string, out func() string) string {
	t.Helper()
	err := lab.Await(ctx, "the lab to stand", func(context.Context) error {
		if !strings.Contains(out(), sign) {
			return fmt.Errorf("it said: %s", out())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	name := labName.FindString(out())
	if len(processes(t)) == 0 {
		t.Fatalf("no process bears the mark of %s, so looking for left-overs proves nothing: %s", t.Name(), out())
	}
	return name
}

func TestAKeptLabCanBeEnteredAndLeavesNothingOnceItIsDown(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	before := machine(t)
	up, out := command(ctx, t, "up", "--bare")
	if err := up.Run(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	name := awaitUp(ctx, t, "is up", out.String)
	if len(processes(t)) < 10 {
		t.Errorf("a lab of the tutorial has more processes than %v", processes(t))
	}
	hostname, said := command(ctx, t, "exec", "--lab", name, "hangzhou-2", "--", "hostname")
	if err := hostname.Run(); err != nil || said.String() != "hangzhou-2\n" {
		t.Errorf("hostname on hangzhou-2 printed %q: %v", said, err)
	}
	status, said := command(ctx, t, "exec", "--lab", name, "hangzhou-2/a", "--", "sh", "-c", "exit 7")
	var exit *exec.ExitError
	if err := status.Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("exec gave %v (%s), want the command's exit status 7", err, said)
	}
	down, said := command(ctx, t, "down", name)
	if err := down.Run(); err != nil {
		t.Errorf("down: %v: %s", err, said)
	}
	nothingLeft(t, before, name)
}

func TestAFailedDemoSaysSoAndLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	before := machine(t)
	demo, out := command(ctx, t, "demo")
	demo.Env = append(demo.Env, "RAVEN_AGENT=/bin/false")
	var exit *exec.ExitError
	if err := demo.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("a demo whose agents end at once gave %v, want exit status 1", err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if last := lines[len(lines)-1]; last != "0 passed, 2 failed" {
		t.Errorf("the last line is %q, want 0 passed, 2 failed: %s", last, out)
	}
	nothingLeft(t, before)
}

func TestAKilledOrInterruptedLabLeavesNothing(t *testing.T) {
	options := []string{"hold"}
	if _, err := lab.FindAgent(); err != nil {
		t.Logf("without agents: %v", err)
		options = append(options, "--bare")
	}
	for _, signal := range []unix.Signal{unix.SIGKILL, unix.SIGINT, unix.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			before := machine(t)
			cmd, _ := command(ctx, t, options...)
			cmd.Stdout = nil
			pipe, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(pipe).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			name := awaitUp(ctx, t, "stands", func() string { return line })
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil {
				t.Error("an interrupted command must not succeed")
			}
			err = lab.Await(ctx, "all processes of the lab to end", func(context.Context) error {
				if left := processes(t); len(left) > 0 {
					return fmt.Errorf("left: %v", left)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			nothingLeft(t, before, name)
		})
	}
}
