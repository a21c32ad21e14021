// Package image checks the image archives that make image writes.
package image

import (
	"debug/elf"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ravencni/raven/hack/image/oci"
)

// folder holds the archives: make test-image says which, and makes them first.
func folder(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("RAVEN_IMAGES")
	if dir == "" {
		t.Skip("RAVEN_IMAGES does not say where the archives are: make test-image")
	}
	return dir
}

// each runs f for every image of an archive, unpacked.
func each(t *testing.T, name string, f func(t *testing.T, i oci.Image, root string)) {
	dir := folder(t)
	images, err := oci.Open(filepath.Join(dir, name+".oci.tar"), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(os.Getenv("ARCHS"))
	if len(want) == 0 {
		want = []string{"amd64", "arm64"}
	}
	for _, arch := range want {
		t.Run(arch, func(t *testing.T) {
			i, ok := images[arch]
			if !ok {
				t.Fatalf("the archive has no image for %s", arch)
			}
			root := t.TempDir()
			if err := os.Chmod(root, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := i.Unpack(root); err != nil {
				t.Fatal(err)
			}
			f(t, i, root)
		})
	}
	if len(images) != len(want) {
		t.Errorf("%d platforms, want %v", len(images), want)
	}
}

func TestTheAgentsImageHasAllThatAnyHostNeeds(t *testing.T) {
	each(t, "raven-agent", func(t *testing.T, i oci.Image, root string) {
		checkImage(t, i, root, "raven-agent", "")
		checkLibraries(t, i.Config.Architecture, root)
		if i.Config.Architecture != runtime.GOARCH {
			return
		}
		for _, words := range []string{"/usr/sbin/iptables-legacy --version", "/usr/sbin/ip6tables-legacy --version", "/sbin/modprobe --version", "/usr/sbin/swanctl --help"} {
			if out, err := within(root, 0, strings.Fields(words)...); err != nil {
				t.Errorf("%s: %v\n%s", words, err, out)
			}
		}
		if _, err := os.Stat(filepath.Join(root, "usr/sbin/charon-systemd")); err != nil {
			t.Error(err)
		}
	})
}

func TestTheControllersImageIsOneStaticProgramOfNobodys(t *testing.T) {
	each(t, "raven-controller", func(t *testing.T, i oci.Image, root string) {
		checkImage(t, i, root, "raven-controller", "65532:65532")
		var programs []string
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				if info, err := e.Info(); err != nil || info.Mode()&0o111 != 0 {
					programs = append(programs, strings.TrimPrefix(path, root))
					return err
				}
			}
			return err
		})
		if err != nil || !slices.Equal(programs, []string{"/usr/local/bin/raven-controller"}) {
			t.Errorf("programs: %q, %v", programs, err)
		}
	})
}

// checkImage looks at what both images have in common.
func checkImage(t *testing.T, i oci.Image, root, program, user string) {
	t.Helper()
	c := i.Config
	if want := []string{"/usr/local/bin/" + program}; c.OS != "linux" || !slices.Equal(c.Config.Entrypoint, want) || len(c.Config.Cmd) > 0 || c.Config.User != user {
		t.Errorf("%s, entry point %q, arguments %q, user %q", c.OS, c.Config.Entrypoint, c.Config.Cmd, c.Config.User)
	}
	_, tag, ok := strings.Cut(i.Name, "/"+program+":")
	if !ok || tag == "" || c.Config.Labels["org.opencontainers.image.version"] != tag {
		t.Errorf("the image is named %q, its version is %q", i.Name, c.Config.Labels["org.opencontainers.image.version"])
	}
	for _, licence := range []string{"LICENSE", "LICENSE-BSD-2-Clause", "LICENSE-GPL-2.0", "modules/go/LICENSE", "modules/github.com/spf13/cobra@*/LICENSE*"} {
		found, err := filepath.Glob(filepath.Join(root, "usr/share/doc/raven", licence))
		if err != nil || len(found) != 1 {
			t.Errorf("licence %s: %d files, %v", licence, len(found), err)
			continue
		}
		if info, err := os.Stat(found[0]); err != nil || info.Size() < 500 {
			t.Errorf("licence %s is no text, %v", licence, err)
		}
	}
	own, err := filepath.Glob(filepath.Join(root, "usr/local/bin/*"))
	if err != nil || len(own) == 0 {
		t.Fatalf("no programs: %v", err)
	}
	for _, path := range own {
		f, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[c.Architecture]
		if f.Machine != machine || slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
			t.Errorf("%s is for %v, or not static", path, f.Machine)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if c.Architecture != runtime.GOARCH {
			continue
		}
		name := filepath.Base(path)
		out, err := within(root, 65532, "/usr/local/bin/"+name, "--version")
		if err != nil || !strings.Contains(out, tag) {
			t.Errorf("%s --version: %v, %q does not say %s", name, err, out, tag)
		}
	}
}

// within runs a program of the image, with nothing else of this machine, as a user.
func within(root string, user uint32, command ...string) (string, error) {
	if os.Geteuid() != 0 {
		return "", errors.New("needs root to enter the image")
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: user, Gid: user}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// checkLibraries sees that every program and library of the image finds all that it links to, for its processor.
func checkLibraries(t *testing.T, arch, root string) {
	t.Helper()
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
	there := map[string]bool{}
	needed := map[string]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		there[e.Name()] = true
		if !e.Type().IsRegular() {
			return nil
		}
		f, err := elf.Open(path)
		if err != nil {
			return nil // a text
		}
		defer f.Close()
		if f.Machine != machine {
			t.Errorf("%s is for %v", path, f.Machine)
		}
		libraries, err := f.ImportedLibraries()
		for _, l := range libraries {
			needed[l] = strings.TrimPrefix(path, root)
		}
		return err
	})
	if err != nil || len(needed) < 5 {
		t.Errorf("%d libraries needed, %v", len(needed), err)
	}
	for l, by := range needed {
		if !there[l] {
			t.Errorf("%s needs %s, which the image lacks", by, l)
		}
	}
}
