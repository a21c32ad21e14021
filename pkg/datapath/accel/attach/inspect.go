package attach

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath/rtnl"
)

// Parts of struct tcmsg and of the numbering of qdiscs (linux/rtnetlink.h, linux/pkt_sched.h).
const (
	tcmsgBytes    = 20
	parentRoot    = 0xffffffff // TC_H_ROOT
	parentIngress = 0xfffffff2 // TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)
	parentEgress  = 0xfffffff3 // TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)

	attrKind    = 1 // TCA_KIND
	attrOptions = 2 // TCA_OPTIONS
	attrBPFName = 7 // TCA_BPF_NAME
	attrBPFID   = 11
)

// LoopbackIndex is the index of lo in every network namespace.
const LoopbackIndex = 1

// HaveTCX asks the kernel whether it has tcx (Linux 6.6): older ones do not know the attach type.
func HaveTCX() bool {
	_, err := link.QueryPrograms(link.QueryOptions{Target: LoopbackIndex, Attach: ebpf.AttachTCXIngress})
	return err == nil
}

// Inspection is one look at the traffic control of a network namespace.
type Inspection struct {
	conn *rtnl.Conn
	tcx  bool
	own  map[ebpf.ProgramID]bool
	tc   map[int]*tcState
}

// tcState is what one device has of classic traffic control.
type tcState struct {
	// root is the kind of a root qdisc that somebody chose.
	root string
	// hooks is the kind of the qdisc that holds ingress filters: clsact or ingress.
	hooks string
	// ours is the id of the program in our filter, 0 where there is none; name is the filter's.
	ours ebpf.ProgramID
	name string
	// Words on filters of others.
	ingress, egress string
}

// Inspect looks at all devices. own are the programs that are Raven's, tcx says whether the kernel has tcx. The
// Inspection uses conn for as long as it is in use.
func Inspect(conn *rtnl.Conn, tcx bool, own map[ebpf.ProgramID]bool) (*Inspection, error) {
	return inspect(conn, tcx, own, func(int) bool { return true })
}

// InspectOnly is Inspect for some devices; it knows nothing of the others.
func InspectOnly(conn *rtnl.Conn, tcx bool, own map[ebpf.ProgramID]bool, devices ...int) (*Inspection, error) {
	return inspect(conn, tcx, own, func(index int) bool { return slices.Contains(devices, index) })
}

func inspect(conn *rtnl.Conn, tcx bool, own map[ebpf.ProgramID]bool, concerns func(int) bool) (*Inspection, error) {
	in := &Inspection{conn: conn, tcx: tcx, own: own, tc: make(map[int]*tcState)}
	messages, err := conn.Dump(unix.RTM_GETQDISC, make([]byte, tcmsgBytes))
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	for _, m := range messages {
		if len(m) < tcmsgBytes {
			continue
		}
		index, handle, parent := tcmsg(m)
		if !concerns(index) {
			continue
		}
		kind := kindOf(m)
		state := in.state(index)
		switch {
		case kind == "clsact" || kind == "ingress":
			state.hooks = kind
		case parent == parentRoot && handle != 0:
			// The kernel's own default has no handle; noqueue and friends that somebody asked for have one.
			state.root = kind
		}
	}
	for index, state := range in.tc {
		if state.hooks == "" {
			continue
		}
		if err := in.filters(index, state); err != nil {
			return nil, err
		}
	}
	return in, nil
}

func (in *Inspection) state(index int) *tcState {
	state := in.tc[index]
	if state == nil {
		state = &tcState{}
		in.tc[index] = state
	}
	return state
}

// filters fills in who has filters on a device.
func (in *Inspection) filters(index int, state *tcState) error {
	for _, parent := range []uint32{parentIngress, parentEgress} {
		request := make([]byte, tcmsgBytes)
		binary.NativeEndian.PutUint32(request[4:], uint32(index))
		binary.NativeEndian.PutUint32(request[12:], parent)
		messages, err := in.conn.Dump(unix.RTM_GETTFILTER, request)
		if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
			continue // the device, or its qdisc, has gone meanwhile
		}
		if err != nil {
			return fmt.Errorf("list the tc filters of device %d: %w", index, err)
		}
		for _, m := range messages {
			if len(m) < tcmsgBytes {
				continue
			}
			f := parseFilter(m)
			switch {
			case f.isOurs():
				if f.program != 0 {
					state.ours, state.name = f.program, f.name
				}
			case parent == parentIngress:
				state.ingress = f.String()
			case state.hooks == "clsact": // an ingress qdisc answers for any parent with the same filters
				state.egress = f.String()
			}
		}
	}
	return nil
}

type filter struct {
	kind     string
	name     string
	handle   uint32
	priority uint32
	program  ebpf.ProgramID
}

func parseFilter(m []byte) filter {
	_, handle, _ := tcmsg(m)
	f := filter{kind: kindOf(m), handle: handle, priority: binary.NativeEndian.Uint32(m[16:]) >> 16}
	for a := range rtnl.Attributes(m[tcmsgBytes:]) {
		if a.Type != attrOptions || f.kind != "bpf" {
			continue
		}
		for o := range rtnl.Attributes(a.Value) {
			switch o.Type {
			case attrBPFName:
				f.name = o.Text()
			case attrBPFID:
				f.program = ebpf.ProgramID(o.Uint32())
			}
		}
	}
	return f
}

// isOurs is true for our filter, and for the message without a handle by which the kernel announces its priority.
func (f filter) isOurs() bool {
	return f.kind == "bpf" && f.priority == FilterPriority &&
		(f.handle == 0 || f.handle == FilterHandle && strings.HasPrefix(f.name, "raven_"))
}

func (f filter) String() string {
	if f.name != "" {
		return fmt.Sprintf("%s filter %q of priority %d", f.kind, f.name, f.priority)
	}
	return fmt.Sprintf("%s filter of priority %d", f.kind, f.priority)
}

// Foreign says what others have put on a device that acceleration would bypass: programs and filters on ingress or
// egress, or a qdisc that shapes. It is empty where there is nothing.
func (in *Inspection) Foreign(index int) (string, error) {
	if why, err := in.ForeignIngress(index); why != "" || err != nil {
		return why, err
	}
	if state := in.tc[index]; state != nil {
		if state.root != "" {
			return "it has the qdisc " + state.root, nil
		}
		if state.egress != "" {
			return "it has the egress " + state.egress, nil
		}
	}
	return in.foreignTCX(index, ebpf.AttachTCXEgress, "egress")
}

// ForeignIngress is Foreign for what a device receives.
func (in *Inspection) ForeignIngress(index int) (string, error) {
	if state := in.tc[index]; state != nil && state.ingress != "" {
		return "it has the ingress " + state.ingress, nil
	}
	return in.foreignTCX(index, ebpf.AttachTCXIngress, "ingress")
}

func (in *Inspection) foreignTCX(index int, at ebpf.AttachType, direction string) (string, error) {
	if !in.tcx {
		return "", nil
	}
	attached, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: at})
	if errors.Is(err, unix.ENODEV) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("list the %s programs of device %d: %w", direction, index, err)
	}
	for _, p := range attached.Programs {
		if !in.own[p.ID] {
			return fmt.Sprintf("it has the tcx %s program %s", direction, programName(p.ID)), nil
		}
	}
	return "", nil
}

// programName is for people; a program that has gone is named by its id.
func programName(id ebpf.ProgramID) string {
	number := fmt.Sprintf("number %d", id)
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return number
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil || info.Name == "" {
		return number
	}
	return fmt.Sprintf("%q (%s)", info.Name, number)
}

func tcmsg(m []byte) (index int, handle, parent uint32) {
	n := binary.NativeEndian
	return int(int32(n.Uint32(m[4:]))), n.Uint32(m[8:]), n.Uint32(m[12:])
}

func kindOf(m []byte) string {
	for a := range rtnl.Attributes(m[tcmsgBytes:]) {
		if a.Type == attrKind {
			return a.Text()
		}
	}
	return ""
}
