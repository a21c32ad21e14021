// Command image makes an OCI image archive for several processor architectures out of folders, without a container
// engine. The same folders give the same archive, byte for byte. hack/image/build.sh fills the folders and calls it.
//
//	image --name registry.example/raven-agent:v1.0.0 --entrypoint /usr/local/bin/raven-agent --time 1700000000 \
//	      --out raven-agent.oci.tar amd64=DIR[,DIR...] arm64=DIR[,DIR...]
//
// Each DIR is a layer, the lowest first.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

func main() {
	var o options
	var seconds int64
	flag.StringVar(&o.name, "name", "", "name and tag of the image")
	flag.StringVar(&o.title, "title", "", "what the image is, in a few words")
	flag.StringVar(&o.revision, "revision", "", "commit of the sources")
	flag.StringVar(&o.entrypoint, "entrypoint", "", "path of the program in the image")
	flag.StringVar(&o.user, "user", "", "number of the user who runs it; empty: root")
	flag.StringVar(&o.out, "out", "", "file to write")
	flag.Int64Var(&seconds, "time", 0, "time of all files, in seconds since 1970")
	flag.Parse()
	o.at = time.Unix(seconds, 0).UTC()
	err := o.parse(flag.Args())
	if err == nil {
		err = o.run()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
		os.Exit(1)
	}
}

type options struct {
	name, title, revision, entrypoint, user, out string
	at                                           time.Time
	platforms                                    []platform
}

// platform is one architecture with the folders of its layers.
type platform struct {
	architecture string
	folders      []string
}

func (o *options) parse(args []string) error {
	if o.name == "" || o.entrypoint == "" || o.out == "" || len(args) == 0 {
		return fmt.Errorf("--name, --entrypoint, --out and at least one ARCH=DIR must be given")
	}
	if _, tag, ok := cutTag(o.name); !ok || tag == "" {
		return fmt.Errorf("--name %q has no tag", o.name)
	}
	for _, a := range args {
		architecture, folders, ok := strings.Cut(a, "=")
		if !ok {
			return fmt.Errorf("%q is not ARCH=DIR", a)
		}
		o.platforms = append(o.platforms, platform{architecture, strings.Split(folders, ",")})
	}
	return nil
}

// cutTag splits registry:5000/name:tag.
func cutTag(name string) (repository, tag string, ok bool) {
	i := strings.LastIndexByte(name, ':')
	if i < strings.LastIndexByte(name, '/') {
		return name, "", false
	}
	return name[:max(i, 0)], name[i+1:], i > 0
}
