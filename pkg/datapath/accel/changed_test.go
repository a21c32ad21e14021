package accel

import (
	"maps"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// changed is specOf with one program's instructions changed.
func changed(t *testing.T, name string, change func(t *testing.T, p *ebpf.ProgramSpec)) map[string]func() (*ebpf.CollectionSpec, error) {
	t.Helper()
	all := maps.Clone(specOf)
	all[name] = func() (*ebpf.CollectionSpec, error) {
		spec, err := specOf[name]()
		if err == nil {
			change(t, spec.Programs[name])
		}
		return spec, err
	}
	return all
}

// anotherBuild puts an instruction without effect in front, so that the tag differs.
func anotherBuild(_ *testing.T, p *ebpf.ProgramSpec) { prepend(p, asm.Mov.Imm(asm.R0, 1)) }

func readsOutOfBounds(_ *testing.T, p *ebpf.ProgramSpec) {
	prepend(p, asm.LoadMem(asm.R0, asm.R1, 4096, asm.DWord))
}

// prepend keeps the metadata of the function's first instruction in front.
func prepend(p *ebpf.ProgramSpec, ins asm.Instruction) {
	first := p.Instructions[0]
	ins = ins.WithMetadata(first.Metadata)
	p.Instructions[0].Metadata = asm.Metadata{}
	p.Instructions = append(asm.Instructions{ins}, p.Instructions...)
}

func pin(t *testing.T, spec *ebpf.MapSpec, path string) {
	t.Helper()
	spec.Pinning = ebpf.PinNone
	m, err := ebpf.NewMap(spec)
	must(t, err)
	must(t, m.Pin(path))
	must(t, m.Close())
}
