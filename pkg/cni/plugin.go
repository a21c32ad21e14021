// Package cni is the chained CNI plugin: it accelerates a pod from the moment that its network is made, by the pinned
// BPF objects alone, without the daemon and without the API. It is never needed: the daemon finds pods by itself. So
// nothing that goes wrong here fails a pod; the log says what it was.
//
// docs/design/cni.md tells why it works as it does.
package cni

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/ravencni/raven/pkg/datapath/accel/attach"
	"github.com/ravencni/raven/pkg/datapath/accel/pintree"
)

// Type is the plugin's name in a network configuration, and that of its binary.
const Type = "raven-cni"

// Versions are those of the CNI specification that the plugin speaks: all. Chains begin with 0.3.0; an older version
// costs nothing, and refusing one would cost pods.
var Versions = version.All

// codeDamaged is the error code of a CHECK that found damage; the specification leaves codes from 100 on to plugins.
const codeDamaged = 100

// Plugin is one run of the plugin, which carries out one command. The zero value serves.
type Plugin struct {
	// PinRoot is the folder of pinned trees; empty: pintree.Root.
	PinRoot string
	// LogFile says where to write why a pod is not accelerated, where the configuration does not; empty: DefaultLog.
	LogFile string
	// ForceClsact attaches as on kernels without tcx, for tests.
	ForceClsact bool
	// Out takes the result; nil: os.Stdout.
	Out io.Writer
	// Background has an ADD leave the pod's acceleration to another run of this program, which is Main's.
	Background bool
	// handed is the pod's network namespace, locked, in a run that was left behind; else nil.
	handed *os.File
}

// Funcs are the plugin's commands.
func (p *Plugin) Funcs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: p.Add, Del: p.Del, Check: p.Check, GC: p.GC, Status: p.Status}
}

// Add accelerates the pod if that is possible, and returns the result of the plugins before it unchanged, byte by byte.
func (p *Plugin) Add(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	if len(c.PrevResult) == 0 {
		return types.NewError(types.ErrInvalidNetworkConfig, Type+" makes no network of its own: put it after the "+
			"plugin that does, in the same list of plugins", "")
	}
	do := p.accelerate
	if p.Background {
		do = p.leave
	}
	p.attempt(c, "ADD", args, do)
	out := p.Out
	if out == nil {
		out = os.Stdout
	}
	if _, err := out.Write(c.PrevResult); err != nil {
		return types.NewError(types.ErrIOFailure, "write the result: "+err.Error(), "")
	}
	return nil
}

// Del forgets the pod. It succeeds whatever is there or not.
func (p *Plugin) Del(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		c = &config{}
	}
	p.attempt(c, "DEL", args, p.forget)
	return nil
}

// GC removes what belongs to no pod of this node. What a pod is, the kernel says: an attachment that the runtime forgot
// but whose network stands is not stale, and the daemon would make it anew.
func (p *Plugin) GC(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	return p.guard(func() error { return p.collect(p.logger(c, "GC", args)) })
}

// Status says whether an ADD would succeed, and it would: a failing chained plugin makes the whole node NotReady.
func (p *Plugin) Status(args *skel.CmdArgs) error {
	_, err := parse(args.StdinData)
	return err
}

// attempt does what may fail without consequence.
func (p *Plugin) attempt(c *config, command string, args *skel.CmdArgs, do func(*config, *skel.CmdArgs) error) {
	log := p.logger(c, command, args)
	err := p.guard(func() error { return do(c, args) })
	var not *unable
	switch {
	case err == nil:
		log.Debug("done")
	case errors.As(err, &not):
		log.Info("the pod is left to the kernel's own tables", "reason", not.reason)
	default:
		log.Warn("the pod is left to the kernel's own tables", "error", err)
	}
}

// guard makes an error of a panic. It keeps do on one thread, whose network namespace is the host's.
func (p *Plugin) guard(do func() error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("a mistake in %s: %v", Type, r)
		}
	}()
	return do()
}

// unable is a reason why acceleration is not possible that is no failure.
type unable struct{ reason string }

func (u *unable) Error() string { return u.reason }

func unablef(format string, args ...any) error { return &unable{fmt.Sprintf(format, args...)} }

func (p *Plugin) root() string {
	if p.PinRoot == "" {
		return pintree.Root
	}
	return p.PinRoot
}

func (p *Plugin) tcx() bool { return !p.ForceClsact && attach.HaveTCX() }

func (p *Plugin) logger(c *config, command string, args *skel.CmdArgs) *slog.Logger {
	path := p.LogFile
	if c.LogFile != "" {
		path = c.LogFile
	}
	if path == "" {
		path = DefaultLog
	}
	handler := slog.NewTextHandler(logFile(path), &slog.HandlerOptions{Level: c.level()})
	return slog.New(handler).With("command", command, "container", args.ContainerID, "interface", args.IfName)
}
