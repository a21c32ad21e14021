package attach

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// nameBytes is the most of a program's name that the kernel keeps (BPF_OBJ_NAME_LEN less the end).
const nameBytes = 15

// HasProgram says whether a program of that name and of Raven's runs at the tc ingress of a device, by tcx or by clsact.
func (in *Inspection) HasProgram(program string, index int) (bool, error) {
	if state := in.tc[index]; state != nil && state.ours != 0 && in.own[state.ours] && strings.HasPrefix(state.name, program) {
		return true, nil
	}
	if !in.tcx {
		return false, nil
	}
	attached, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("list the ingress programs of device %d: %w", index, err)
	}
	for _, p := range attached.Programs {
		if in.own[p.ID] && strings.Contains(programName(p.ID), `"`+program[:min(len(program), nameBytes)]) {
			return true, nil
		}
	}
	return false, nil
}
