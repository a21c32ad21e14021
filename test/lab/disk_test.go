package lab_test

import (
	"os"
	"testing"

	"github.com/ravencni/raven/test/lab"
)

func TestANodeWithADiskOfItsOwnLeavesTheMachinesAlone(t *testing.T) {
	spec := lab.Pair()
	spec.Disks, spec.Regions = true, spec.Regions[:1]
	ctx, l := start(t, "disks", spec)
	const file = "/etc/raven-lab-was-here"
	node, other := l.Host("east-1"), l.Host("east-2")
	if _, err := node.Run(ctx, "touch", file, "/var/lib/raven/state"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(node.Path(file)); err != nil {
		t.Errorf("what a node wrote is not on its disk: %v", err)
	}
	for where, path := range map[string]string{"the machine": file, "another node": other.Path(file), "a NAT box": l.Host("east-nat").Path(file)} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("what a node wrote to its disk is on that of %s: %v", where, err)
		}
	}
	if _, err := os.Stat(l.Dir + "/nodes/east-1/state"); err != nil {
		t.Errorf("the node's lasting state does not lie in the lab's folder: %v", err)
	}
	if _, err := other.Run(ctx, "ls", "/dev/net/tun", "/sys/fs/bpf", lab.Folder); err != nil {
		t.Error(err)
	}
}
