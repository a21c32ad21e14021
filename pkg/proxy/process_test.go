package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ravencni/raven/pkg/controller/services"
	"github.com/ravencni/raven/pkg/proxy/proxytest"
	"github.com/ravencni/raven/pkg/topology"
	"github.com/ravencni/raven/test/netns"
)

// processFile in the environment names the file that says which proxy this process is.
const processFile = "RAVEN_TEST_PROXY_PROCESS"

// processConfig is what a proxy in a process of its own is told.
type processConfig struct {
	Node string
	// State and Identity are files: the cluster's objects, and key, certificate and authority in PEM.
	State, Identity string
}

func TestMain(m *testing.M) {
	path := os.Getenv(processFile)
	if path == "" {
		os.Exit(m.Run())
	}
	if err := runProcess(path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// runProcess is the proxy of one node until SIGTERM; SIGHUP has it read its certificate again.
func runProcess(path string) error {
	var c processConfig
	var state topology.State
	if err := errors.Join(readJSON(path, &c), readJSON(c.State, &state)); err != nil {
		return err
	}
	id := &proxytest.Identity{}
	if err := loadIdentity(id, c.Identity); err != nil {
		return err
	}
	p := New(Options{
		Node: c.Node, Identity: id, Targets: func() services.Targets { return nil },
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	ended := make(chan struct{})
	go func() { defer close(ended); p.Run(ctx) }()
	p.Set(state)
	for {
		select {
		case <-ended:
			return nil
		case <-reload:
			if err := loadIdentity(id, c.Identity); err != nil {
				return err
			}
			p.Renewed()
		}
	}
}

func readJSON(path string, into any) error {
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	return err
}

func loadIdentity(id *proxytest.Identity, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	key, rest := pem.Decode(text)
	if key == nil {
		return errors.New(path + " has no key")
	}
	leaf, authority := pem.Decode(rest)
	if leaf == nil {
		return errors.New(path + " has no certificate")
	}
	pair, err := tls.X509KeyPair(pem.EncodeToMemory(leaf), pem.EncodeToMemory(key))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return errors.New(path + " has no authority")
	}
	id.Set(&pair, roots)
	return nil
}

// process is a running proxy.
type process struct {
	node, dir string
	in        *netns.Namespace
	authority proxytest.Authority
	cmd       *exec.Cmd
	ended     chan error
}

// newProcess prepares the proxy of a node; start starts it.
func newProcess(t *testing.T, node string, in *netns.Namespace, a proxytest.Authority, state topology.State) *process {
	t.Helper()
	p := &process{node: node, dir: t.TempDir(), in: in, authority: a}
	p.write(t, "state.json", asJSON(t, state))
	p.write(t, "process.json", asJSON(t, processConfig{Node: node, State: p.file("state.json"), Identity: p.file("identity.pem")}))
	t.Cleanup(func() {
		if p.cmd != nil {
			p.kill(t)
		}
		if t.Failed() {
			log, _ := os.ReadFile(p.file("log")) // as far as there is one
			var said strings.Builder
			for line := range strings.Lines(string(log)) {
				if !strings.Contains(line, " status=200 ") {
					said.WriteString(line)
				}
			}
			t.Logf("log of the proxy of %s:\n%s", node, said.String())
		}
	})
	return p
}

func (p *process) file(name string) string { return filepath.Join(p.dir, name) }

func (p *process) write(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(p.file(name), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func asJSON(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// certify gives the process a new key and certificate, which it reads when it starts or is told to.
func (p *process) certify(t *testing.T) {
	t.Helper()
	m, err := p.authority.Proxy(t, p.node).Material()
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(m.Certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for _, der := range [][]byte{m.Certificate.Certificate[0], p.authority.Certificate.Raw} {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	p.write(t, "identity.pem", text)
}

// start starts the process in its namespace. Call it on the thread of netns.Run.
func (p *process) start(t *testing.T) {
	t.Helper()
	p.certify(t)
	log, err := os.OpenFile(p.file("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), processFile+"="+p.file("process.json"))
	cmd.Stdout, cmd.Stderr = io.Discard, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.in.Do(t, func() {
		if err := cmd.Start(); err != nil {
			t.Fatalf("start the proxy of %s: %v", p.node, err)
		}
	})
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	p.cmd, p.ended = cmd, ended
}

// kill ends the process without a chance to say goodbye.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("kill the proxy of %s: %v", p.node, err)
	}
	<-p.ended
	p.cmd = nil
}

// restart ends the process as an update of its pod does, and starts it again once it has ended.
func (p *process) restart(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-p.ended; err != nil {
		t.Errorf("the proxy of %s ended with %v", p.node, err)
	}
	p.start(t)
}

// ups counts the tunnels to the proxy of a node that the process has made so far.
func (p *process) ups(t *testing.T, to string) (n int) {
	t.Helper()
	log, err := os.ReadFile(p.file("log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "a tunnel to an exposed gateway is up") && strings.Contains(line, "node="+to+" ") {
			n++
		}
	}
	return n
}
