package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
)

const calico = `{
  "name": "k8s-pod-network",
  "cniVersion": "0.3.1",   "x-unknown": {"a": [1, 2, {"plugins": []}]},
  "plugins": [
    {"type": "calico", "mtu": 0, "odd":"\u00e9 ] }" },
    {"type": "portmap", "snat": true}
  ], "later": 1.50
}
`

// node is a runtime's two folders.
type node struct {
	t         *testing.T
	conf, bin string
	options   Options
}

func newNode(t *testing.T) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{t: t, conf: filepath.Join(dir, "net.d"), bin: filepath.Join(dir, "bin")}
	for _, d := range []string{n.conf, n.bin} {
		must(t, os.Mkdir(d, 0o755))
	}
	source := filepath.Join(dir, "plugin")
	must(t, os.WriteFile(source, []byte("#!binary"), 0o755))
	n.options = Options{
		ConfDir: n.conf, BinDir: n.bin, Source: source, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		LoadsDropIns: func() bool { return false }, Pause: 50 * time.Millisecond, PauseMost: 200 * time.Millisecond,
	}
	return n
}

func (n *node) write(name, text string) {
	n.t.Helper()
	must(n.t, os.WriteFile(filepath.Join(n.conf, name), []byte(text), 0o640))
}

func (n *node) read(name string) string {
	n.t.Helper()
	b, err := os.ReadFile(filepath.Join(n.conf, name))
	must(n.t, err)
	return string(b)
}

// runs starts an installer that ends before the test does.
func (n *node) runs() *Installer {
	n.t.Helper()
	i := New(n.options)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx, func() {}) }()
	n.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
	})
	return i
}

// loads is what the runtime's library makes of the folder: the types of the first list's plugins.
func (n *node) loads() []string {
	names, err := folder(n.conf).names()
	if err != nil || len(names) == 0 {
		return nil
	}
	path := filepath.Join(n.conf, names[0])
	if !strings.HasSuffix(path, listSuffix) {
		text, err := os.ReadFile(path)
		if err != nil {
			return []string{err.Error()}
		}
		c, err := libcni.NetworkPluginConfFromBytes(text)
		if err != nil {
			return []string{err.Error()}
		}
		return []string{c.Network.Type}
	}
	list, err := libcni.NetworkConfFromFile(path)
	if err != nil {
		return []string{err.Error()}
	}
	var kinds []string
	for _, p := range list.Plugins {
		kinds = append(kinds, p.Network.Type)
	}
	return kinds
}

func (n *node) await(what string, ok func() bool) {
	n.t.Helper()
	enough := time.NewTimer(30 * time.Second)
	defer enough.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-enough.C:
			n.t.Fatalf("%s did not come: the runtime loads %v", what, n.loads())
		case <-tick.C:
		}
	}
}

func (n *node) awaitLoads(kinds ...string) {
	n.t.Helper()
	n.await(fmt.Sprint(kinds), func() bool { return slices.Equal(n.loads(), kinds) })
}

// remove undoes the installation and returns what was said.
func (n *node) remove() (said []string) {
	n.t.Helper()
	say := func(line string) { said = append(said, line) }
	must(n.t, RemoveConfig(context.Background(), n.conf, say))
	must(n.t, RemoveBinary(n.conf, n.bin, say))
	return said
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAListGetsThePluginAndIsUndoneByteForByte(t *testing.T) {
	for name, text := range map[string]string{
		"spread out": calico,
		"on a line":  `{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"ptp"}]}`,
		"no version": "{\"name\": \"pods\", \"plugins\": [ {\"type\": \"ptp\"}\n\t]}\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := parseList([]byte(text))
			must(t, err)
			with, err := parseList(c.with())
			must(t, err)
			if !with.has() || !slices.Equal(with.kinds(), c.kinds()) || with.plugins[len(with.plugins)-1].kind != Type {
				t.Errorf("with the plugin: %s", with.text)
			}
			if got := string(with.without()); got != text {
				t.Errorf("undone:\n%q\nwas:\n%q", got, text)
			}
			// Others chained one behind ours, and one of ours came first.
			behind := strings.Replace(string(with.text), ours, ours+", {\"type\": \"tuning\"}", 1)
			after, err := parseList([]byte(behind))
			must(t, err)
			left, err := parseList(after.without())
			must(t, err)
			if want := append(c.kinds(), "tuning"); left.has() || !slices.Equal(left.kinds(), want) {
				t.Errorf("left: %s", left.text)
			}
		})
	}
}

func TestHalfAFileIsNoList(t *testing.T) {
	for end := range len(strings.TrimSpace(calico)) {
		if _, err := parseList([]byte(calico[:end])); err == nil {
			t.Fatalf("the first %d bytes are taken for a list", end)
		}
	}
	if _, err := parseList([]byte(calico + "}")); err == nil {
		t.Error("what follows the end is overlooked")
	}
}

func TestTheFirstConfigurationGetsThePluginAndTheBinaryGoesLast(t *testing.T) {
	n := newNode(t)
	n.write("10-calico.conflist", calico)
	n.write("99-other.conflist", strings.Replace(calico, "k8s-pod-network", "other", 1))
	n.runs()
	n.awaitLoads("calico", "portmap", Type)
	info, err := os.Stat(filepath.Join(n.conf, "10-calico.conflist"))
	must(t, err)
	if info.Mode().Perm() != 0o640 {
		t.Errorf("the file's mode became %v", info.Mode())
	}
	if binary, err := os.ReadFile(filepath.Join(n.bin, Type)); err != nil || string(binary) != "#!binary" {
		t.Errorf("binary: %q, %v", binary, err)
	}
	// A network that comes first from now on takes its place.
	n.write("05-new.conflist", `{"cniVersion":"1.0.0","name":"new","plugins":[{"type":"ptp"}]}`)
	n.awaitLoads("ptp", Type)
	n.await("the old one's return", func() bool { return n.read("10-calico.conflist") == calico })
}

func TestWhatIsInstalledIsRemoved(t *testing.T) {
	n := newNode(t)
	n.write("10-calico.conflist", calico)
	i := New(n.options)
	if _, problems := i.see(); len(problems) > 0 {
		t.Fatal(problems)
	}
	if said := n.remove(); len(said) != 2 || !strings.HasSuffix(said[1], "/bin/"+Type) {
		t.Errorf("said %q", said)
	}
	if n.read("10-calico.conflist") != calico {
		t.Errorf("left: %s", n.read("10-calico.conflist"))
	}
	if said := n.remove(); said != nil {
		t.Errorf("the second time: %q", said)
	}
	if left, err := os.ReadDir(n.bin); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestASingleConfigurationIsWrappedAndComesBack(t *testing.T) {
	const flannel = `{"cniVersion": "0.3.1", "name": "cbr0", "type": "flannel", "odd": [1]}`
	n := newNode(t)
	n.write("10-flannel.conf", flannel)
	n.runs()
	n.awaitLoads("flannel", Type)
	// Its owner writes it again, with a change.
	n.write("10-flannel.conf", strings.Replace(flannel, "[1]", "[2]", 1))
	n.await("the change", func() bool {
		b, err := os.ReadFile(filepath.Join(n.conf, "10-flannel.raven.conflist"))
		return err == nil && strings.Contains(string(b), "[2]") && slices.Equal(n.loads(), []string{"flannel", Type})
	})
	n.remove()
	if got := n.read("10-flannel.conf"); got != strings.Replace(flannel, "[1]", "[2]", 1) {
		t.Errorf("left: %s", got)
	}
}

func TestARuntimeThatLoadsDropInsKeepsItsListUntouched(t *testing.T) {
	n := newNode(t)
	n.options.LoadsDropIns = func() bool { return true }
	n.write("10-calico.conflist", calico)
	before, err := os.Stat(filepath.Join(n.conf, "10-calico.conflist"))
	must(t, err)
	if _, problems := New(n.options).see(); len(problems) > 0 {
		t.Fatal(problems)
	}
	n.awaitLoads("calico", "portmap", Type)
	after, err := os.Stat(filepath.Join(n.conf, "10-calico.conflist"))
	must(t, err)
	if n.read("10-calico.conflist") != calico || os.SameFile(before, after) {
		t.Error("the list has to be renamed onto itself, with its content")
	}
	i := New(n.options)
	if _, problems := i.see(); len(problems) > 0 {
		t.Fatal(problems)
	}
	if again, err := os.Stat(filepath.Join(n.conf, "10-calico.conflist")); err != nil || !os.SameFile(after, again) {
		t.Errorf("the second look writes: %v", err)
	}
	n.remove()
	n.awaitLoads("calico", "portmap")
	if left, err := os.ReadDir(n.conf); err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestAListOfANewerSpecificationIsLeftAloneWithAWord(t *testing.T) {
	n := newNode(t)
	text := strings.Replace(calico, "0.3.1", "9.0.0", 1)
	n.write("10-calico.conflist", text)
	_, problems := New(n.options).see()
	if len(problems) != 1 || !strings.Contains(problems[0].Message, `its cniVersion is "9.0.0"`) {
		t.Errorf("problems %v", problems)
	}
	if n.read("10-calico.conflist") != text {
		t.Error("it was changed")
	}
}

func TestAMissingBinaryLeavesTheConfigurationAlone(t *testing.T) {
	n := newNode(t)
	n.options.Source += "-missing"
	n.write("10-calico.conflist", calico)
	if _, problems := New(n.options).see(); len(problems) != 1 || problems[0].Reason != "CNIBinaryMissing" {
		t.Errorf("problems %v", problems)
	}
	if n.read("10-calico.conflist") != calico {
		t.Error("it was changed")
	}
	if err := RemoveBinary(n.conf, n.bin, func(string) {}); err != nil {
		t.Error(err)
	}
	n.write("10-calico.conflist", strings.Replace(calico, "portmap", Type, 1))
	if err := RemoveBinary(n.conf, n.bin, func(string) {}); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("the binary of a list that calls it: %v", err)
	}
	n.write("10-calico.conflist", `{ "plugins": [ { "type": "raven-cni" }, `)
	if err := RemoveBinary(n.conf, n.bin, func(string) {}); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("the binary of half a list that calls it: %v", err)
	}
}

func TestABinaryThatChangesOnEitherSideIsInstalledAgain(t *testing.T) {
	n := newNode(t)
	n.write("10-calico.conflist", calico)
	i, path := New(n.options), filepath.Join(n.bin, Type)
	for _, change := range []func() error{
		func() error { return nil },
		func() error { return os.WriteFile(path, []byte("#!damage"), 0o755) },
		func() error { return os.Chmod(path, 0o600) },
		func() error { return os.Remove(path) },
		func() error { return os.WriteFile(n.options.Source, []byte("#!newest"), 0o755) },
	} {
		must(t, change())
		if _, problems := i.see(); len(problems) > 0 {
			t.Fatal(problems)
		}
		want, err := os.ReadFile(n.options.Source)
		must(t, err)
		have, err := os.ReadFile(path)
		must(t, err)
		info, err := os.Stat(path)
		must(t, err)
		if string(have) != string(want) || info.Mode().Perm() != 0o755 {
			t.Errorf("installed is %q with mode %v, want %q", have, info.Mode(), want)
		}
	}
}
