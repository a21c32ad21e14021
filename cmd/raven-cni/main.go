// Command raven-cni is the chained CNI plugin that accelerates a pod from its start. The runtime calls it; by hand:
//
//	raven-cni --version
package main

import (
	"fmt"
	"os"

	"github.com/ravencni/raven/pkg/cni"
	"github.com/ravencni/raven/pkg/version"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "--version" {
		fmt.Println(cni.Type, "version", version.String())
		return
	}
	cni.Main("CNI plugin " + cni.Type + " " + version.String())
}
