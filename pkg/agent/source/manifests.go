package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ravencni/raven/pkg/topology"
)

const (
	// settle is how long a folder must have been still before it is read, so that a file that is being written and a
	// set of files that is being copied count as one change.
	settle = 100 * time.Millisecond
	// patience is how long a folder that never rests is waited for; what is new in it is then taken, and nothing that
	// is missing is removed.
	patience = 2 * time.Second
	// rescan is how often the folder is looked at without a notice, for file systems that give none, and for a folder
	// that vanished and came back.
	rescan = 10 * time.Second
)

// Manifests is the source that reads a folder of YAML and JSON files: Gateways of both versions, TunnelEndpoints, Nodes
// and the two ConfigMaps. See docs/design/agent.md for what a missing or broken file means.
type Manifests struct {
	dir      string
	settings Settings
	// complete fills in what an API server's controller would have: the status of the Gateways.
	complete func(topology.State) topology.State
	log      *slog.Logger
	changed  notice

	// Owned by Run.
	files   map[string]*file
	last    objects // what was delivered, before complete
	config  topology.Config
	dirErr  error
	done    *listing  // the listing that files stands for
	pending listing   // the listing of the last look
	looked  time.Time // when pending was first seen
	since   time.Time // when the folder began to change; zero: it does not

	mu    sync.Mutex
	input Input
}

// file is a manifest and what was read from it.
type file struct {
	id    identity
	final bool // found stands for all of the content with id
	err   error
	found decoded
}

// NewManifests makes a source of folder dir. seed is the last good input, or nil. complete may be nil.
func NewManifests(
	dir string, settings Settings, seed *Input, complete func(topology.State) topology.State, log *slog.Logger,
) *Manifests {
	m := &Manifests{
		dir: dir, settings: settings, complete: complete, log: log, changed: newNotice(),
		files: map[string]*file{}, last: newObjects(), config: settings.Defaults(),
	}
	if seed != nil {
		m.last, m.config = objectsOf(seed.State), settings.override(seed.State.Config)
		m.input = *seed
		m.input.State.Config = m.config
	} else {
		m.input.State.Config = m.config
	}
	m.input.Synced, m.input.Waiting = false, "the manifests folder has not been read yet"
	return m
}

// Changed implements Source.
func (m *Manifests) Changed() <-chan struct{} { return m.changed }

// Input implements Source.
func (m *Manifests) Input() Input {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.input
}

// Run implements Source.
func (m *Manifests) Run(ctx context.Context) error {
	watch, err := newFolderWatch(m.dir)
	if err != nil {
		m.log.Warn("cannot watch the manifests folder; it is looked at every 10 s instead", "folder", m.dir, "error", err)
	}
	defer watch.close()

	tick := time.NewTicker(rescan)
	defer tick.Stop()
	again := time.NewTimer(0) // the first look
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watch.events():
			// A timer that runs already covers this notice: the look it leads to sees whether the folder rests.
			if m.since.IsZero() {
				m.since = time.Now()
				again.Reset(settle)
			}
			continue
		case err := <-watch.errors():
			m.log.Debug("notices of the manifests folder were lost", "folder", m.dir, "error", err)
		case <-tick.C:
		case <-again.C:
		}
		watch.follow()
		if wait := m.look(time.Now()); wait > 0 {
			again.Reset(wait)
		}
	}
}

// look lists the folder and, once it rests, reads what changed. It returns when to look again, or 0.
func (m *Manifests) look(now time.Time) time.Duration {
	current, err := list(m.dir)
	if err != nil {
		m.since = time.Time{}
		m.failed(err)
		return 0
	}
	if m.done != nil && current.equal(*m.done) {
		m.since = time.Time{}
		return 0
	}
	if m.since.IsZero() {
		m.since = now
	}
	if !current.equal(m.pending) || m.looked.IsZero() {
		m.pending, m.looked = current, now
	}
	// Either two looks saw the same, or the files' own times say so; a clock that was set back must not block.
	quiet := now.Sub(current.newest())
	rests := now.Sub(m.looked) >= settle || quiet >= settle
	if !rests && now.Sub(m.since) < patience {
		return settle
	}
	moved, failed := m.readAll(current, rests)
	m.dirErr = nil
	m.deliver(!rests || moved)
	if !rests || moved {
		return settle
	}
	m.since = time.Time{}
	if m.done = &current; failed {
		m.done = nil // the periodic look tries again
	}
	return 0
}

// readAll reads the files that changed. It reports whether one of them moved meanwhile, and whether one cannot be read.
// What is read while the folder does not rest is read once more when it does: a second write within one tick of the
// file system's clock would not show in a file's times.
func (m *Manifests) readAll(current listing, rests bool) (moved, failed bool) {
	present := map[string]bool{}
	for _, e := range current.entries {
		present[e.name] = true
		f := m.files[e.name]
		if f == nil {
			f = &file{found: decoded{objects: newObjects()}}
			m.files[e.name] = f
		}
		if f.final && f.err == nil && f.id == e.id {
			continue
		}
		content, err := readFile(m.dir, e)
		if errors.Is(err, errMoved) {
			moved = true
			continue
		}
		if f.err = err; err != nil {
			failed = true
			continue
		}
		f.id, f.final = e.id, rests
		f.found = withLast(decode(e.name, content), f.found)
	}
	maps.DeleteFunc(m.files, func(name string, _ *file) bool { return !present[name] })
	return moved, failed
}

// withLast adds, to a file that is partly unreadable, its last good objects: nobody knows what the bad part was.
func withLast(now, last decoded) decoded {
	if !now.broken {
		return now
	}
	now.objects.gateways = union(now.objects.gateways, last.objects.gateways)
	now.objects.nodes = union(now.objects.nodes, last.objects.nodes)
	now.objects.endpoints = union(now.objects.endpoints, last.objects.endpoints)
	now.objects.configs = union(now.objects.configs, last.objects.configs)
	return now
}

// union returns a with what only b has.
func union[T any](a, b map[string]T) map[string]T {
	out := maps.Clone(b)
	maps.Copy(out, a)
	return out
}

// failed reports that the folder cannot be listed; everything known stays.
func (m *Manifests) failed(err error) {
	if m.dirErr != nil && m.dirErr.Error() == err.Error() {
		return
	}
	m.dirErr, m.done = err, nil
	m.publish(func(in *Input) {
		in.Problems = []topology.Problem{{
			Object: "Folder/" + filepath.Base(m.dir), Reason: ReasonNotReadable,
			Message: fmt.Sprintf("%v; what it held last stays", err),
		}}
		in.Waiting = err.Error()
	})
}

// deliver makes one State of all files.
func (m *Manifests) deliver(withhold bool) {
	fresh, problems := m.merge()
	kept, more := keep(m.last, fresh, "Folder/"+filepath.Base(m.dir), withhold)
	problems = append(problems, more...)
	config, more := m.settings.apply(m.config, kept.configs)
	problems = append(problems, more...)
	m.last, m.config = kept, config

	state := kept.state(config)
	if m.complete != nil {
		state = m.complete(state)
	}
	m.publish(func(in *Input) {
		in.State, in.Problems, in.Synced, in.Waiting = state, sortProblems(problems), true, ""
	})
}

// merge puts the files together, in the order of their names.
func (m *Manifests) merge() (objects, []topology.Problem) {
	all := newObjects()
	var problems []topology.Problem
	for _, name := range slices.Sorted(maps.Keys(m.files)) {
		f := m.files[name]
		problems = append(problems, f.found.problems...)
		if f.err != nil {
			problems = append(problems, topology.Problem{
				Object: "File/" + name, Reason: ReasonNotReadable,
				Message: fmt.Sprintf("%v; its last good objects stay", f.err),
			})
		}
		mergeKind("Gateway", name, all.gateways, f.found.objects.gateways, &problems)
		mergeKind("Node", name, all.nodes, f.found.objects.nodes, &problems)
		mergeKind("TunnelEndpoint", name, all.endpoints, f.found.objects.endpoints, &problems)
		mergeKind("ConfigMap", name, all.configs, f.found.objects.configs, &problems)
	}
	return all, problems
}

func mergeKind[T any](kind, file string, into, from map[string]T, problems *[]topology.Problem) {
	for name, object := range from {
		if _, twice := into[name]; twice {
			*problems = append(*problems, topology.Problem{
				Object: kind + "/" + name, Reason: ReasonDuplicate,
				Message: fmt.Sprintf("file %s repeats an object of a file that sorts before it; the first one counts", file),
			})
			continue
		}
		into[name] = object
	}
}

// publish changes the input and gives notice if that made a difference.
func (m *Manifests) publish(change func(*Input)) {
	m.mu.Lock()
	before := m.input
	change(&m.input)
	same := sameInput(before, m.input)
	if same {
		m.input = before
	}
	m.mu.Unlock()
	if !same {
		m.changed.give()
	}
}

var _ Source = (*Manifests)(nil)
