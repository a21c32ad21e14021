package install

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/test/netns"
)

// rewrites writes the list anew, with a growing number in it, by both ways in which programs write files: in place, and
// by rename. It returns the last one written.
func (n *node) rewrites(times int, every time.Duration, between func()) (last string) {
	n.t.Helper()
	tick := time.NewTicker(every)
	defer tick.Stop()
	path := filepath.Join(n.conf, "10-calico.conflist")
	for i := range times {
		last = strings.Replace(calico, `"mtu": 0`, fmt.Sprintf(`"mtu": %d`, i), 1)
		if i%2 == 0 {
			must(n.t, os.WriteFile(path, []byte(last), 0o644))
		} else {
			must(n.t, os.WriteFile(path+".tmp", []byte(last), 0o644))
			must(n.t, os.Rename(path+".tmp", path))
		}
		<-tick.C
		between()
	}
	return last
}

func TestAnotherWriterTenTimesASecondLosesNothingAndIsNamed(t *testing.T) {
	n := newNode(t)
	n.write("10-calico.conflist", calico)
	i := n.runs()
	n.awaitLoads("calico", "portmap", Type)
	last := n.rewrites(30, 100*time.Millisecond, func() {
		// Half a file is the writer's own doing; ours never shows anything but a whole list.
		if kinds := n.loads(); len(kinds) < 2 || kinds[0] != "calico" {
			t.Errorf("the runtime loads %v", kinds)
		}
	})
	n.awaitLoads("calico", "portmap", Type)
	c, err := parseList([]byte(n.read("10-calico.conflist")))
	must(t, err)
	if string(c.without()) != last {
		t.Errorf("the last write is lost: %s", c.text)
	}
	var problems []Problem
	n.await("a problem", func() bool { problems = i.Problems(); return len(problems) > 0 })
	if len(problems) != 1 || problems[0].Reason != "CNIConfigRewritten" ||
		!strings.Contains(problems[0].Message, "most likely the installer of calico, portmap") {
		t.Errorf("problems %+v", problems)
	}
}

func TestRepairsAreDamped(t *testing.T) {
	n := newNode(t)
	n.options.Pause, n.options.PauseMost = time.Hour, time.Hour
	n.write("10-calico.conflist", calico)
	i := New(n.options)
	for range 5 {
		i.see()
		n.write("10-calico.conflist", calico)
	}
	if again, problems := i.see(); again < 50*time.Minute || len(problems) != 1 || i.repairs != 0 {
		t.Errorf("next look in %v, problems %v, %d repairs", again, problems, i.repairs)
	}
}

func TestARepairIsToldOfByTheLookThatMadeIt(t *testing.T) {
	n := newNode(t)
	n.options.Pause, n.options.PauseMost = time.Nanosecond, time.Nanosecond
	n.write("10-calico.conflist", calico)
	i := New(n.options)
	if _, problems := i.see(); len(problems) > 0 {
		t.Errorf("problems %+v of a first look", problems)
	}
	n.write("10-calico.conflist", calico)
	if _, problems := i.see(); len(problems) != 1 || problems[0].Reason != "CNIConfigRewritten" || i.repairs != 1 {
		t.Errorf("problems %+v, %d repairs", problems, i.repairs)
	}
}

func TestAWriterWhoIsAlwaysFasterIsNamed(t *testing.T) {
	n := newNode(t)
	n.options.Pause, n.options.PauseMost = time.Nanosecond, time.Nanosecond
	n.write("10-calico.conflist", calico)
	i := New(n.options)
	i.see()
	n.write("10-calico.conflist", calico)
	// A file that somebody has open for writing is given back, as one is that was written meanwhile.
	f, err := os.OpenFile(filepath.Join(n.conf, "10-calico.conflist"), os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	if _, problems := i.see(); len(problems) != 1 || problems[0].Reason != "CNIConfigRewritten" || i.repairs != 0 {
		t.Errorf("problems %+v, %d repairs", problems, i.repairs)
	}
}

func TestAnExchangeNeverLosesAnothersWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "list")
	must(t, os.WriteFile(path, []byte("0"), 0o600))
	stop := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if was, err := os.ReadFile(path); err == nil {
				_ = replace(path, was, []byte(strings.TrimSuffix(string(was), "+")+"+"))
			}
		}
	})
	var last string
	for i := range 2000 {
		last = fmt.Sprint(i)
		tmp := filepath.Join(dir, "theirs")
		must(t, os.WriteFile(tmp, []byte(last), 0o600))
		must(t, os.Rename(tmp, path))
	}
	close(stop)
	group.Wait()
	got, err := os.ReadFile(path)
	must(t, err)
	if strings.TrimSuffix(string(got), "+") != last {
		t.Errorf("the last write was %s, and %s stands", last, got)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestAFileThatIsOpenForWritingIsGivenBack(t *testing.T) {
	n := newNode(t)
	n.write("10-calico.conflist", calico)
	path := filepath.Join(n.conf, "10-calico.conflist")
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	if err := replace(path, []byte(calico), []byte("ours")); err == nil || n.read("10-calico.conflist") != calico {
		t.Errorf("replaced under the writer's hands: %v", err)
	}
	_, err = f.WriteAt([]byte(" "), 0)
	must(t, err)
	must(t, f.Close())
	if got := n.read("10-calico.conflist"); got[0] != ' ' {
		t.Errorf("the writer's word is lost: %s", got)
	}
}

func TestATruncatedFileIsAwaitedAndNotPassedBy(t *testing.T) {
	n := newNode(t)
	other := strings.Replace(calico, "k8s-pod-network", "other", 1)
	n.write("10-calico.conflist", calico[:len(calico)/2])
	n.write("99-other.conflist", other)
	i := New(n.options)
	if again, problems := i.see(); again > truncatedFor || len(problems) > 0 {
		t.Errorf("next look in %v, problems %v", again, problems)
	}
	if n.read("99-other.conflist") != other || n.read("10-calico.conflist") != calico[:len(calico)/2] {
		t.Error("a file was changed while the first one was being written")
	}
	// Nobody completes it: the next one counts.
	old := time.Now().Add(-time.Minute)
	must(t, os.Chtimes(filepath.Join(n.conf, "10-calico.conflist"), old, old))
	i.see()
	if !strings.Contains(n.read("99-other.conflist"), Type) {
		t.Error("the first valid list has no plugin")
	}
	n.write("10-calico.conflist", calico)
	i.see()
	n.awaitLoads("calico", "portmap", Type)
	if n.read("99-other.conflist") != other {
		t.Errorf("the other list is %s", n.read("99-other.conflist"))
	}
}

func TestAReadOnlyFolderIsReportedAndNothingElse(t *testing.T) {
	n := newNode(t)
	n.write("10-calico.conflist", calico)
	netns.Run(t, func(t *testing.T) {
		must(t, unix.Mount(n.conf, n.conf, "", unix.MS_BIND, ""))
		must(t, unix.Mount("", n.conf, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
		i := New(n.options)
		_, problems := i.see()
		if len(problems) != 1 || problems[0].Reason != "CNIConfigNotWritten" || !strings.Contains(problems[0].Message, "read-only") {
			t.Errorf("problems %+v", problems)
		}
		if kinds := n.loads(); !slices.Equal(kinds, []string{"calico", "portmap"}) {
			t.Errorf("the runtime loads %v", kinds)
		}
	})
}

func TestAPluginChainedBehindOursStays(t *testing.T) {
	n := newNode(t)
	n.write("10-calico.conflist", calico)
	i := New(n.options)
	i.see()
	behind := strings.Replace(n.read("10-calico.conflist"), ours, ours+",\n    { \"type\": \"istio-cni\", \"x\": 1 }", 1)
	n.write("10-calico.conflist", behind)
	if _, problems := i.see(); len(problems) > 0 || n.read("10-calico.conflist") != behind {
		t.Errorf("problems %v, list %s", problems, n.read("10-calico.conflist"))
	}
	n.remove()
	want := strings.Replace(calico, `"snat": true}`, "\"snat\": true},\n    { \"type\": \"istio-cni\", \"x\": 1 }", 1)
	if got := n.read("10-calico.conflist"); got != want {
		t.Errorf("left:\n%s", got)
	}
}

func TestTheRuntimesOwnBinaryTellsWhetherItLoadsDropIns(t *testing.T) {
	for version, want := range map[string]bool{"v1.3.0": true, "v2.0.0-rc1": true, "v1.2.3": false, "v0.8.1": false, "(devel)": false} {
		if got := atLeast(version, 1, 3); got != want {
			t.Errorf("%s: %v", version, got)
		}
	}
	info := &debug.BuildInfo{Deps: []*debug.Module{{Path: "other", Version: "v9.0.0"}, {Path: library, Version: "v1.3.1"}}}
	if !linksDropIns(info) {
		t.Error("the library in the binary was not seen")
	}
	info.Deps[1].Replace = &debug.Module{Path: library, Version: "v1.2.0"}
	if linksDropIns(info) || linksDropIns(&debug.BuildInfo{}) {
		t.Error("an older library, or none, is taken for the new one")
	}
	if RuntimeLoadsDropIns(t.TempDir()) {
		t.Error("no process at all is taken for the runtime")
	}
}
