// Package install puts the CNI plugin and its configuration on a node, keeps them there, and takes them away.
//
// docs/design/cni.md tells how it shares a folder with other writers.
package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/ravencni/raven/pkg/atomicfile"
)

// Options of an Installer.
type Options struct {
	// ConfDir is the runtime's folder of network configurations, such as /etc/cni/net.d; BinDir that of plugins, such as
	// /opt/cni/bin.
	ConfDir, BinDir string
	// Source is the plugin's binary.
	Source string
	// LoadsDropIns says whether the runtime reads plugins from the folder of a network (libcni 1.3); nil: RuntimeLoadsDropIns.
	LoadsDropIns func() bool
	// Pause is the least time between two repairs, which doubles up to PauseMost while somebody keeps undoing them; zero:
	// a second and a minute.
	Pause, PauseMost time.Duration
	// Logger; nil: slog.Default().
	Logger *slog.Logger
}

const (
	// settle is how long the folder has to rest before it is looked at: a file is often written in several steps.
	settle = 100 * time.Millisecond
	// restless is how long a folder that never rests waits.
	restless = time.Second
	// look is how often it is looked at without a reason.
	look = 30 * time.Second
	// forgive is how long nobody must have undone our work for the pause between repairs to be short again.
	forgive = 5 * time.Minute
)

// Problem is what a person should know.
type Problem struct{ Object, Reason, Message string }

// Installer keeps the plugin installed.
type Installer struct {
	options Options
	folder  folder

	mu       sync.Mutex
	problems []Problem

	// Owned by Run.
	pause   time.Duration
	notYet  time.Time // no repair before
	last    time.Time // of the last repair
	repairs int
	fight   *Problem
	// source and installed are the plugin's binary and its copy, at the last look that found them the same.
	source, installed os.FileInfo
	stands            string // where our plugin's configuration was at the last look; empty: nowhere
}

// New makes an Installer; it touches nothing before Run.
func New(o Options) *Installer {
	if o.LoadsDropIns == nil {
		o.LoadsDropIns = func() bool { return RuntimeLoadsDropIns("/proc") }
	}
	if o.Pause == 0 {
		o.Pause, o.PauseMost = time.Second, time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &Installer{options: o, folder: folder(o.ConfDir), pause: o.Pause}
}

// Problems tells what does not work, since the last look.
func (i *Installer) Problems() []Problem {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.problems
}

// Run installs the plugin and repairs the installation until ctx is done, which leaves it as it is. It calls changed
// after a change of Problems. An error says that the folder cannot be watched.
func (i *Installer) Run(ctx context.Context, changed func()) error {
	for _, dir := range []string{i.options.ConfDir, i.options.BinDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the folder of CNI configurations or plugins: %w", err)
		}
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch CNI configurations: %w", err)
	}
	defer watcher.Close()
	if err := watcher.Add(i.options.ConfDir); err != nil {
		return fmt.Errorf("watch CNI configurations in %s: %w", i.options.ConfDir, err)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var since time.Time // of the first notice since the last look; zero: none
	noticed := func() {
		if since.IsZero() {
			since = time.Now()
		}
		timer.Reset(max(0, min(settle, restless-time.Since(since))))
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, open := <-watcher.Events:
			if !open {
				return errors.New("the watch on CNI configurations ended")
			}
			if e.Name == i.options.ConfDir && e.Has(fsnotify.Remove|fsnotify.Rename) {
				return fmt.Errorf("%s was removed", i.options.ConfDir)
			}
			noticed()
			continue
		case err := <-watcher.Errors:
			i.options.Logger.Warn("a notice of a CNI configuration was lost", "error", err) // the look below makes up for it
			noticed()
			continue
		case <-timer.C:
		}
		since = time.Time{}
		again, problems := i.see()
		if i.tell(problems) {
			changed()
		}
		timer.Reset(again)
	}
}

// tell reports whether the problems are others than before.
func (i *Installer) tell(problems []Problem) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	same := len(problems) == len(i.problems)
	for n := 0; same && n < len(problems); n++ {
		same = problems[n] == i.problems[n]
	}
	i.problems = problems
	return !same
}

// see looks once and corrects what is not as it should be. It returns the time until the next look.
func (i *Installer) see() (again time.Duration, problems []Problem) {
	if err := i.binary(); err != nil {
		// A configuration that names a plugin which is not there would fail pods.
		return look, []Problem{{"CNI/" + Type, "CNIBinaryMissing", oneLine(err)}}
	}
	again = look
	if i.fight != nil && time.Since(i.last) > forgive {
		i.fight, i.repairs, i.pause = nil, 0, i.options.Pause
	}
	err := i.configure()
	if i.fight != nil {
		problems = append(problems, *i.fight)
	}
	var wait *waiting
	switch {
	case err == nil:
	case errors.As(err, &wait):
		again = max(wait.left, settle)
	case errors.Is(err, errRaced):
		again = settle
	case errors.Is(err, errUnsettled):
		again = truncatedFor
	default:
		problems = append(problems, Problem{"CNI/" + i.options.ConfDir, "CNIConfigNotWritten", oneLine(err) +
			"; pods start without the plugin, and the agent accelerates them after their start"})
	}
	return again, problems
}

// waiting says that a repair is due, and not yet allowed.
type waiting struct{ left time.Duration }

func (w *waiting) Error() string { return fmt.Sprintf("the next repair waits %v", w.left) }

// binary keeps the plugin's binary in place. Its content is read only where either file is another than at the last look:
// looks are many, and it has megabytes.
func (i *Installer) binary() error {
	path := filepath.Join(i.options.BinDir, Type)
	source, err := os.Stat(i.options.Source)
	if err != nil {
		return fmt.Errorf("look at the plugin's binary: %w", err)
	}
	if have, err := os.Stat(path); err == nil && unchanged(source, i.source) && unchanged(have, i.installed) {
		return nil
	}
	if err := i.installBinary(path); err != nil {
		return err
	}
	installed, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("look at the installed plugin's binary: %w", err)
	}
	i.source, i.installed = source, installed
	return nil
}

// unchanged is true where a look at a file shows what an earlier one did; before is nil where there was none.
func unchanged(now, before os.FileInfo) bool {
	return before != nil && os.SameFile(now, before) && now.Size() == before.Size() && now.Mode() == before.Mode() &&
		now.ModTime().Equal(before.ModTime())
}

func (i *Installer) installBinary(path string) error {
	want, err := os.ReadFile(i.options.Source)
	if err != nil {
		return fmt.Errorf("read the plugin's binary: %w", err)
	}
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, want) {
		if info, err := os.Stat(path); err == nil && info.Mode().Perm() == 0o755 {
			return nil
		}
	}
	if err := atomicfile.Write(path, want, 0o755); err != nil {
		return fmt.Errorf("install the plugin's binary: %w", err)
	}
	i.options.Logger.Info("CNI plugin installed", "path", path)
	return nil
}

// configure makes the primary configuration call the plugin, and no other.
func (i *Installer) configure() error {
	if err := i.folder.rewrap(); err != nil {
		return err
	}
	primary, err := i.folder.primary()
	if err != nil {
		return err
	}
	if primary == nil {
		return nil // no network yet: its own installation will write one, and the watch will tell
	}
	if primary.list == nil {
		return i.repair(primary, listFor(primary.path), nil, func() error { return i.folder.wrapConf(primary) })
	}
	if why := primary.list.takes(); why != "" {
		return fmt.Errorf("%s is left alone: %s", primary.path, why)
	}
	if !primary.list.inlinedOnly && !strings.HasSuffix(primary.path, wrapSuffix) && i.options.LoadsDropIns() {
		return i.configureDropIn(primary)
	}
	if primary.list.has() {
		i.stands = primary.path
	} else if err := i.repair(primary, primary.path, primary.list.kinds(), func() error {
		return replace(primary.path, primary.text, primary.list.with())
	}); err != nil {
		return err
	}
	_, errLists := i.folder.takeOut(primary.path)
	_, errDropIns := i.folder.removeDropIns("")
	return errors.Join(errLists, errDropIns)
}

// configureDropIn uses a file of our own in the network's folder, so that nobody's file is changed.
func (i *Installer) configureDropIn(primary *file) error {
	path := filepath.Join(i.options.ConfDir, primary.list.name, dropIn)
	text := []byte(ours + "\n")
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, text) && !primary.list.has() {
		i.stands = path
		return nil
	}
	if err := i.repair(primary, path, primary.list.kinds(), func() error {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make the folder of the network %s: %w", primary.list.name, err)
		}
		if err := atomicfile.Write(path, text, 0o644); err != nil {
			return err
		}
		// Twice in one chain would be harmless and wrong. The runtime watches the upper folder alone, so the primary
		// configuration is written even where it stays what it was.
		return replace(primary.path, primary.text, primary.list.without())
	}); err != nil {
		return err
	}
	_, errLists := i.folder.takeOut(primary.path)
	_, errDropIns := i.folder.removeDropIns(path)
	return errors.Join(errLists, errDropIns)
}

// repair writes, unless somebody undid the last write so lately that it has to wait. at is where our plugin's
// configuration stands afterwards.
func (i *Installer) repair(primary *file, at string, kinds []string, write func() error) error {
	undone := i.stands == at
	if undone {
		if left := time.Until(i.notYet); left > 0 {
			i.blame(primary, kinds)
			return &waiting{left}
		}
	}
	if err := write(); err != nil {
		if undone && errors.Is(err, errRaced) {
			i.blame(primary, kinds) // a writer who is always faster is the one whom a person has to know most
		}
		return err
	}
	i.stands = at
	i.last = time.Now()
	i.notYet = i.last.Add(i.pause)
	if undone {
		i.repairs++
		i.pause = min(2*i.pause, i.options.PauseMost)
		i.notYet = i.last.Add(i.pause)
		i.blame(primary, kinds)
	}
	i.options.Logger.Info("CNI plugin configured", "path", at, "repairs", i.repairs)
	return nil
}

// blame names who undoes our work, as well as the file tells: what it says, and whose it is.
func (i *Installer) blame(primary *file, kinds []string) {
	who := "another program"
	if len(kinds) > 0 {
		who = "another program, most likely the installer of " + strings.Join(kinds, ", ")
	}
	network := ""
	if primary.list != nil {
		network = fmt.Sprintf(" (network %q)", primary.list.name)
	}
	i.fight = &Problem{
		"CNI/" + filepath.Base(primary.path), "CNIConfigRewritten",
		fmt.Sprintf("%s rewrites %s%s without %s, which was put back %d times; between repairs pods start without the plugin, "+
			"and the agent accelerates them after their start", who, primary.path, network, Type, i.repairs),
	}
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
