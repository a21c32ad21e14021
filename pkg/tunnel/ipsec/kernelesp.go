package ipsec

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/datapath"
)

// kernelESP carries packets by the kernel's ESP: charon sits in the host's namespace, and each peer has an XFRM interface.
type kernelESP struct {
	*thread
	device string
	port   int
	have   []peerInterface
	// orphans are the states that an earlier charon left, by if_id. They carry traffic until a new tunnel stands.
	orphans map[uint32][]netlink.XfrmState
}

// newKernelESP serves the namespace host on a UDP port.
func newKernelESP(host int, device string, port int) (*kernelESP, error) {
	t, err := newThread(func() error {
		if err := unix.Setns(host, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter this host's network namespace: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	k := &kernelESP{thread: t, device: device, port: port}
	err = k.do(func() (err error) {
		k.orphans, err = states()
		return err
	})
	if err != nil {
		k.end()
		return nil, err
	}
	return k, nil
}

// config keeps charon from taking our own devices' addresses, which are the node's once more, for other ways to it, and
// our tables for ways to its peers. Port 0: nothing of IKE leaves but by the one port.
func (k *kernelESP) config(socket string) string {
	ignored := []string{datapath.OverlayDevice, otherDevice}
	for n := range mostIgnored {
		ignored = append(ignored, baseName(k.device)+strconv.Itoa(n))
	}
	// Table 0: charon makes no rule for a table of its own, in which install_routes = no puts nothing.
	more := fmt.Sprintf("routing_table = 0\n  interfaces_ignore = %s\n  ignore_routing_tables = %d %d",
		strings.Join(ignored, ","), datapath.TableRemote, datapath.TableInRegion)
	return fmt.Sprintf(charonConfig, "kernel-netlink", 0, k.port, more, socket, "")
}

// otherDevice is WireGuard's, which is there, too, while a region changes from one driver to the other.
const otherDevice = "raven-wg0"

// mostIgnored bounds the list of devices that charon is told to ignore; it compares whole names only.
const mostIgnored = 256

func (k *kernelESP) ready(int) error { return nil }

func (k *kernelESP) prepare(_ context.Context, want *Desired) (changes int, without map[string]bool, err error) {
	without = map[string]bool{}
	peers := nodesOf(want)
	err = k.do(func() error {
		have, taken, err := listInterfaces(k.device)
		if err != nil {
			return err
		}
		keep, add, _ := planInterfaces(k.device, have, taken, peers)
		var errs []error
		for _, i := range add {
			if err := i.create(); err != nil {
				errs = append(errs, err)
				continue
			}
			changes++
			keep = append(keep, i)
		}
		k.have = keep
		return errors.Join(errs...)
	})
	for _, p := range peers {
		if k.number(p) == 0 {
			without[p] = true
		}
	}
	return changes, without, err
}

// nodesOf are the peers' names.
func nodesOf(want *Desired) (nodes []string) {
	for _, p := range want.Peers {
		nodes = append(nodes, p.Node)
	}
	return nodes
}

// withdraw removes the interfaces of peers that are wanted no more.
func (k *kernelESP) withdraw(want *Desired) (changes int, err error) {
	peers := nodesOf(want)
	err = k.do(func() error {
		have, taken, err := listInterfaces(k.device)
		if err != nil {
			return err
		}
		_, _, gone := planInterfaces(k.device, have, taken, peers)
		var errs []error
		for _, i := range gone {
			n, err := i.remove()
			changes += n
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	return changes, err
}

// settled ends what an earlier charon left of a peer.
func (k *kernelESP) settled(peer string) error {
	id := k.number(peer)
	if len(k.orphans[id]) == 0 {
		return nil
	}
	return k.do(func() error {
		_, err := endStates(k.orphans[id])
		if err == nil {
			delete(k.orphans, id)
		}
		return err
	})
}

// number is the if_id of a peer; 0 where it has no interface.
func (k *kernelESP) number(peer string) uint32 {
	for _, i := range k.have {
		if i.peer == peer {
			return i.ifID()
		}
	}
	return 0
}

func (k *kernelESP) terms() terms { return terms{port: k.port, number: k.number} }

func (k *kernelESP) close(remove bool) (err error) {
	if remove {
		err = k.do(func() error {
			_, err := removeInterfaces(k.device)
			return err
		})
	}
	k.end()
	return err
}
