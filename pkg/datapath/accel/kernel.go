package accel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Linux 6.1 is the first long-term kernel with every helper and kfunc that the programs use.
const minMajor, minMinor = 6, 1

// unavailable is why this node cannot accelerate; the baseline goes on.
type unavailable struct {
	// reason is one line for people.
	reason string
	// err is the cause; nil where the reason says it all.
	err error
}

func (u *unavailable) Error() string {
	if u.err == nil {
		return u.reason
	}
	return u.reason + ": " + u.err.Error()
}

func (u *unavailable) Unwrap() error { return u.err }

// checkKernel looks for what must be there before programs are loaded.
func checkKernel(pinRoot string) error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return &unavailable{reason: "the kernel's version cannot be read", err: err}
	}
	if release := unix.ByteSliceToString(name.Release[:]); !newEnough(release) {
		return &unavailable{reason: fmt.Sprintf("Linux %s is older than %d.%d", release, minMajor, minMinor)}
	}
	if err := checkFilesystem(pinRoot); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(conntrackDir, "nf_conntrack_udp_timeout")); err != nil {
		return &unavailable{
			reason: "conntrack is not loaded (modprobe nf_conntrack)", err: err,
		}
	}
	return checkTolerance()
}

// checkTolerance makes sure that conntrack takes streams whose middle it did not see. Without these settings, which are
// another part's to make, it calls the first packets that come back to the stack invalid, and many a host drops those.
func checkTolerance() error {
	for _, name := range []string{"nf_conntrack_tcp_be_liberal", "nf_conntrack_tcp_ignore_invalid_rst"} {
		value, err := readNumber(filepath.Join(conntrackDir, name))
		if err != nil || value == 0 {
			return &unavailable{
				reason: fmt.Sprintf("the sysctl net.netfilter.%s is not 1, so conntrack would break off accelerated streams", name),
				err:    err,
			}
		}
	}
	return nil
}

func newEnough(release string) bool {
	var major, minor int
	if n, err := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 || err != nil {
		return false
	}
	return major > minMajor || major == minMajor && minor >= minMinor
}

// checkFilesystem makes sure that pins outlive the process. It mounts nothing: what an agent mounts in its container
// goes with the container.
func checkFilesystem(pinRoot string) error {
	at := pinRoot
	for {
		var fs unix.Statfs_t
		err := unix.Statfs(at, &fs)
		if err == nil {
			if fs.Type == unix.BPF_FS_MAGIC {
				return nil
			}
			return &unavailable{reason: fmt.Sprintf("%s is not on a BPF filesystem (on the host: "+
				"mount -t bpf bpf /sys/fs/bpf; in a container, share the host's)", pinRoot)}
		}
		if !errors.Is(err, unix.ENOENT) || at == filepath.Dir(at) {
			return &unavailable{reason: "the filesystem of " + pinRoot + " cannot be examined", err: err}
		}
		at = filepath.Dir(at)
	}
}

// explain makes one line of a failure to load programs, and the last lines of the verifier's log where there is one.
func explain(err error) (reason string, verifier []string) {
	var refused *ebpf.VerifierError
	switch {
	case errors.As(err, &refused):
		verifier = refused.Log[max(0, len(refused.Log)-20):]
		reason = "the kernel's verifier refuses a program: " + oneLine(err)
	case errors.Is(err, errLayout):
		reason = oneLine(err)
	case strings.Contains(err.Error(), "kfunc"):
		reason = "the kernel lacks conntrack's kfuncs for BPF (CONFIG_NF_CONNTRACK with CONFIG_DEBUG_INFO_BTF_MODULES): " +
			oneLine(err)
	case errors.Is(err, unix.EPERM):
		reason = "not permitted to use BPF (CAP_BPF, CAP_NET_ADMIN, or a security module): " + oneLine(err)
	default:
		reason = "the BPF programs cannot be loaded: " + oneLine(err)
	}
	return reason, verifier
}

// maxReason bounds a reason in bytes, since it is shown in status and logs.
const maxReason = 400

func oneLine(err error) string {
	s := strings.Join(strings.Fields(err.Error()), " ")
	if len(s) > maxReason {
		s = s[:maxReason] + "..."
	}
	return s
}
