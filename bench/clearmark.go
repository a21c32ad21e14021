package bench

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/ravencni/raven/test/lab"
)

// clearMark clears the packets' mark where they leave by a device: a program of three instructions at its egress. The original does
// it by a matchall filter with the action skbedit, which not every kernel has and which costs more than this.
func clearMark(h *lab.Host, device string) error {
	// Offset of mark in struct __sk_buff (include/uapi/linux/bpf.h), and TCX_NEXT.
	const mark, next = 8, -1
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "clear_mark", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{
			asm.StoreImm(asm.R1, mark, 0, asm.Word),
			asm.Mov.Imm(asm.R0, next),
			asm.Return(),
		},
	})
	if err != nil {
		return fmt.Errorf("load the program that clears marks: %w", err)
	}
	defer program.Close()
	dev, err := h.Link(device)
	if err != nil {
		return err
	}
	return h.Do(func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: dev.Attrs().Index, Program: program, Attach: ebpf.AttachTCXEgress})
		if err != nil {
			return fmt.Errorf("attach the program that clears marks to %s on %s: %w", device, h.Name, err)
		}
		defer l.Close()
		// The device keeps it for as long as it lives: pinned below the node's own bpffs, which goes with the node.
		if err := l.Pin(h.Path("/sys/fs/bpf/clear-mark")); err != nil {
			return fmt.Errorf("keep the program that clears marks on %s: %w", h.Name, err)
		}
		return nil
	})
}
