package bpf

import (
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/bench/gate"
	"github.com/ravencni/raven/test/netns"
)

// referenceLookups of the reference program: enough that it takes about as long as ours.
const referenceLookups = 8

// newReference loads the program that the others' costs are compared with: look-ups in a hash map, which are most of what
// they do, too. It must never change, or the baselines mean something else.
func newReference(t *testing.T) *ebpf.Program {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 1024})
	must(t, err)
	t.Cleanup(func() { _ = m.Close() })
	must(t, m.Put(uint64(0), uint64(1)))
	var code asm.Instructions
	for range referenceLookups {
		code = append(code,
			asm.StoreImm(asm.R10, -8, 0, asm.Word), asm.StoreImm(asm.R10, -4, 0, asm.Word),
			asm.Mov.Reg(asm.R2, asm.R10), asm.Add.Imm(asm.R2, -8),
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.FnMapLookupElem.Call())
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "reference", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: append(code, asm.Mov.Imm(asm.R0, 0), asm.Return())})
	must(t, err)
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// instructionsOf counts the instructions of a program as it was compiled.
func instructionsOf(t *testing.T, program string) int {
	t.Helper()
	spec, err := objects[program]()
	must(t, err)
	var bytes uint64
	for _, ins := range spec.Programs[program].Instructions {
		bytes += ins.Size()
	}
	return int(bytes / asm.InstructionSize)
}

// TestGateOfInstructions holds each program to the length that it had, and to what the verifier had to process where that
// was recorded for the running kernel's series.
func TestGateOfInstructions(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		for name, p := range newNode(t, true, true).programs {
			gate.Check(t, "instructions of "+name, float64(instructionsOf(t, name)), 0.1)
			info, err := p.Info()
			must(t, err)
			processed, ok := info.VerifiedInstructions()
			of := "instructions of " + name + " that the verifier of " + kernelSeries(t) + " processes"
			if ok && (gate.Raising() || gate.Known(t, of)) {
				gate.Check(t, of, float64(processed), 0.25)
			}
		}
	})
}

// TestGateOfTime holds each program to what a packet cost it in proportion to the reference program. One of several tries
// must do: on a machine whose processors were all busy most of them were within 3 % of one another, and the others above.
func TestGateOfTime(t *testing.T) {
	const tries, tolerance = 6, 0.5
	for _, c := range costCases() {
		netns.Run(t, func(t *testing.T) {
			name := "cost of " + c.program + ", " + c.name
			ready := c.ready(t)
			var ratios []float64
			for range tries {
				_, ratio := ready.measure(t)
				ratios = append(ratios, ratio)
				if !gate.Raising() && !gate.Over(t, name, ratio, tolerance) {
					break
				}
			}
			slices.Sort(ratios)
			if gate.Raising() {
				ratios = ratios[tries/2:] // the baseline is what is usual
			}
			gate.Check(t, name, ratios[0], tolerance)
		})
	}
}

// kernelSeries is the running kernel's, such as 6.18.
func kernelSeries(t *testing.T) string {
	t.Helper()
	var name unix.Utsname
	must(t, unix.Uname(&name))
	fields := strings.SplitN(unix.ByteSliceToString(name.Release[:]), ".", 3)
	return strings.Join(fields[:min(2, len(fields))], ".")
}
