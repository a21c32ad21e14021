package install

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// runtimes are the names of the processes that call CNI plugins.
var runtimes = []string{"containerd", "crio"}

// library is the module that loads configurations; from 1.3 on it reads plugins from the folder of a network.
const library = "github.com/containernetworking/cni"

// RuntimeLoadsDropIns asks the running container runtime's own binary, by what the Go linker recorded in it. It is false
// where no runtime is seen, as in a container without the host's processes: then the plugin goes into the list itself,
// which every runtime reads.
func RuntimeLoadsDropIns(proc string) bool {
	names, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "comm"))
	if err != nil {
		return false
	}
	for _, name := range names {
		comm, err := os.ReadFile(name)
		if err != nil || !slices.Contains(runtimes, strings.TrimSpace(string(comm))) {
			continue
		}
		info, err := buildinfo.ReadFile(filepath.Join(filepath.Dir(name), "exe"))
		if err != nil {
			continue
		}
		return linksDropIns(info)
	}
	return false
}

func linksDropIns(info *buildinfo.BuildInfo) bool {
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		if d.Path == library {
			return atLeast(d.Version, 1, 3)
		}
	}
	return false
}

func atLeast(version string, major, minor int) bool {
	var a, b int
	if n, err := fmt.Sscanf(version, "v%d.%d", &a, &b); n != 2 || err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}
