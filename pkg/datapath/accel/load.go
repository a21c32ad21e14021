package accel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/ravencni/raven/pkg/datapath/accel/attach"
)

// program is one that is loaded and pinned.
type program struct {
	*ebpf.Program
	constants string
	id        ebpf.ProgramID
}

// wantedProgram names a program and its constants.
type wantedProgram struct {
	name      string
	constants map[string]any
}

// load makes sure that the maps and the wanted programs are in the kernel and pinned, and makes a pin anew that somebody
// removed. It fails with *unavailable where the kernel refuses.
func (a *Applier) load(wanted []wantedProgram) error {
	if err := checkKernel(a.options.PinRoot); err != nil {
		return err
	}
	if a.refused != nil && time.Now().Before(a.retryAt) {
		return a.refused
	}
	a.refused = nil
	err := a.ensure(wanted)
	if errors.Is(err, errReplaced) {
		a.options.Logger.Warn("pinned objects were replaced by others; loading anew")
		if err = a.unload(); err == nil {
			err = a.ensure(wanted)
		}
	}
	if err == nil {
		return nil
	}
	reason, verifier := explain(err)
	for _, line := range verifier {
		a.options.Logger.Debug("verifier", "line", line)
	}
	a.refused = &unavailable{reason: reason, err: err}
	a.retryAt = time.Now().Add(retryAfter)
	if errors.Is(err, errLayout) {
		a.retryAt = time.Now() // the caller removes the tree
	}
	return a.refused
}

var errForced = errors.New("made to fail by request")

func (a *Applier) ensure(wanted []wantedProgram) error {
	if a.options.ForceFailure {
		return errForced
	}
	tree := TreePath(a.options.PinRoot)
	if err := os.MkdirAll(tree, 0o700); err != nil {
		return fmt.Errorf("make the folder of pinned objects: %w", err)
	}
	if a.attacher == nil {
		a.attacher = attach.New(tree)
		a.attacher.Clsact = a.attacher.Clsact || a.options.ForceClsact
	}
	if a.maps == nil {
		spec, err := a.specOf[FromPod]()
		if err != nil {
			return fmt.Errorf("read the compiled programs: %w", err)
		}
		specs := make(map[string]*ebpf.MapSpec)
		for name, m := range spec.Maps {
			if m.Pinning == ebpf.PinByName {
				specs[name] = m
			}
		}
		set, made, err := openMaps(tree, specs)
		a.stats.Pins += uint64(made)
		if err != nil {
			return err
		}
		a.maps, a.programs = set, make(map[string]*program)
	} else {
		made, err := a.maps.keepPinned(tree)
		a.stats.Pins += uint64(made)
		if err != nil {
			return err
		}
	}
	types := btf.NewCache()
	for _, w := range wanted {
		if err := a.ensureProgram(tree, w, types); err != nil {
			return err
		}
	}
	return nil
}

func (a *Applier) ensureProgram(tree string, w wantedProgram, types *btf.Cache) error {
	constants := fmt.Sprint(w.constants)
	if p := a.programs[w.name]; p != nil && p.constants == constants {
		made, err := keepProgramPinned(filepath.Join(tree, w.name), p)
		if made {
			a.stats.Pins++
		}
		return err
	}
	loaded, changed, err := loadProgram(tree, w, a.specOf, a.maps, types)
	if changed {
		a.stats.Pins++
	}
	if err != nil {
		return err
	}
	id, err := programID(loaded)
	if err != nil {
		return errors.Join(err, loaded.Close())
	}
	if old := a.programs[w.name]; old != nil {
		err = old.Close()
	}
	a.programs[w.name] = &program{Program: loaded, constants: constants, id: id}
	return err
}

// keepProgramPinned pins again what somebody unpinned by hand.
func keepProgramPinned(path string, p *program) (made bool, err error) {
	pinned, err := ebpf.LoadPinnedProgram(path, nil)
	if errors.Is(err, os.ErrNotExist) {
		clone, err := p.Clone()
		if err != nil {
			return false, fmt.Errorf("pin the program at %s again: %w", path, err)
		}
		if err := errors.Join(clone.Pin(path), clone.Close()); err != nil {
			return false, fmt.Errorf("pin the program at %s again: %w", path, err)
		}
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("open the pinned program %s: %w", path, err)
	}
	id, err := programID(pinned)
	if err := errors.Join(err, pinned.Close()); err != nil {
		return false, err
	}
	if id != p.id {
		return false, errReplaced
	}
	return false, nil
}
