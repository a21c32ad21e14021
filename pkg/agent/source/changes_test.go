package source_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ravencni/raven/pkg/agent/source"
)

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, to, at string) {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}

func TestEveryWayToChangeAFileIsSeen(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, f *folder)
	}{
		{"written in place", func(_ *testing.T, f *folder) { f.write("a.yaml", gateway("new")) }},
		{"renamed over", func(t *testing.T, f *folder) {
			f.write(".a.yaml.tmp", gateway("new"))
			rename(t, f.path(".a.yaml.tmp"), f.path("a.yaml"))
		}},
		{"as an editor saves: moved away, then written anew", func(t *testing.T, f *folder) {
			rename(t, f.path("a.yaml"), f.path("a.yaml~"))
			f.write("a.yaml", gateway("new"))
		}},
		{"of the same size and modification time", func(t *testing.T, f *folder) {
			info, err := os.Stat(f.path("a.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			f.write("a.yaml", gateway("new"))
			if err := os.Chtimes(f.path("a.yaml"), info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		}},
		{"with a modification time in the future", func(t *testing.T, f *folder) {
			f.write("a.yaml", gateway("new"))
			future := time.Now().Add(time.Hour)
			if err := os.Chtimes(f.path("a.yaml"), future, future); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, t.TempDir(), nil)
			f.write("a.yaml", gateway("old"))
			f.await("the old gateway", hasGateways("old"))
			c.change(t, f)
			f.await("the new gateway", hasGateways("new"))
		})
	}
}

func TestAProjectedConfigMapVolumeIsFollowed(t *testing.T) {
	dir := t.TempDir()
	// The layout that the kubelet makes: files are links through ..data, which is swapped as a whole.
	generation := func(name, content string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "gateways.yaml"), content)
		symlink(t, name, filepath.Join(dir, "..data_tmp"))
		rename(t, filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))
	}
	generation("..2026_01", gateway("a")+gateway("b"))
	symlink(t, "..data/gateways.yaml", filepath.Join(dir, "gateways.yaml"))
	f := start(t, dir, nil)
	f.await("the first generation", hasGateways("a", "b"))

	generation("..2026_02", gateway("a")+gateway("c"))
	if err := os.RemoveAll(filepath.Join(dir, "..2026_01")); err != nil {
		t.Fatal(err)
	}
	in := f.await("the second generation", hasGateways("a", "c"))
	if len(in.Problems) > 0 {
		t.Errorf("problems: %v", in.Problems)
	}
}

func TestAFileThatIsBeingWrittenIsNotTakenInHalf(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	f.write("a.yaml", gateway("a")+gateway("b")+gateway("c"))
	f.await("three gateways", hasGateways("a", "b", "c"))
	drain(f)

	// A slow writer truncates the file and brings one document every 40 ms: each part for itself is fine YAML.
	file, err := os.Create(f.path("a.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	pace := time.NewTicker(40 * time.Millisecond)
	defer pace.Stop()
	all := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for _, name := range all {
		<-pace.C
		if _, err := file.WriteString(gateway(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	// The first change that the source tells of must be the whole file.
	<-f.source.Changed()
	if got := gateways(f.source.Input()); !slices.Equal(got, all) {
		t.Errorf("half a file was taken: %v", got)
	}
}

// drain takes a notice that was not taken yet.
func drain(f *folder) {
	select {
	case <-f.source.Changed():
	default:
	}
}

func TestASetOfFilesThatIsBeingReplacedIsOneChange(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	for _, name := range []string{"a", "b", "c"} {
		f.write(name+".yaml", gateway(name))
	}
	f.await("three gateways", hasGateways("a", "b", "c"))
	drain(f)
	for _, name := range []string{"a", "b", "c"} {
		f.remove(name + ".yaml")
	}
	for _, name := range []string{"b", "c", "d"} {
		f.write(name+".yaml", gateway(name))
	}
	<-f.source.Changed()
	if got := gateways(f.source.Input()); !slices.Equal(got, []string{"b", "c", "d"}) {
		t.Errorf("a half-copied folder was taken: %v", got)
	}
}

func TestTheSeedCountsUntilTheFolderWasReadAndWhereItIsEmpty(t *testing.T) {
	first := start(t, t.TempDir(), nil)
	first.write("a.yaml", gateway("a")+node("n1", "a")+endpoint("n1"))
	seed := first.await("all objects", isFine)

	empty := start(t, t.TempDir(), &seed)
	in := empty.await("the empty folder", func(in source.Input) bool { return in.Synced })
	if len(in.State.Gateways) != 1 || len(in.State.Nodes) != 1 || len(in.State.Endpoints) != 1 {
		t.Errorf("the seed was lost: %v %v %v", gateways(in), nodes(in), endpoints(in))
	}

	gone := start(t, filepath.Join(t.TempDir(), "gone"), &seed)
	in = gone.await("a word about the missing folder", func(in source.Input) bool { return len(in.Problems) > 0 })
	if in.Synced || len(in.State.Gateways) != 1 {
		t.Errorf("without a folder the seed must count, unsynced: %t, %v", in.Synced, gateways(in))
	}

	empty.write("b.yaml", gateway("b")+node("m1", "b")+endpoint("m1"))
	empty.await("the folder's own gateway", hasGateways("b"))
}

func TestAFolderThatAnotherOneReplacesIsFollowed(t *testing.T) {
	above := t.TempDir()
	dir, next := filepath.Join(above, "manifests"), filepath.Join(above, "next")
	for path, name := range map[string]string{dir: "a", next: "b"} {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(path, "g.yaml"), gateway(name))
	}
	f := start(t, dir, nil)
	f.await("the first folder's gateway", hasGateways("a"))
	rename(t, dir, filepath.Join(above, "old"))
	rename(t, next, dir)
	// Any event in the old folder makes the source look at the path.
	write(t, filepath.Join(above, "old", "g.yaml"), gateway("x"))
	f.await("the second folder's gateway", hasGateways("b"))
	f.write("g.yaml", gateway("c"))
	f.await("a change in the second folder", hasGateways("c"))
}
