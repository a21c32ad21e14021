package kernels

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Release is a series of kernels and where Debian has it.
type Release struct {
	Series  string   // such as "6.1"
	sources []string // lines of sources.list after "deb [signed-by]"
}

// Releases are the kernels that Raven is tested on besides the machine's own, oldest first: the oldest that it supports,
// which has no tcx, and the long-term series of Debian 13, which has.
func Releases() []Release {
	return []Release{
		{"6.1", []string{"http://deb.debian.org/debian bookworm main",
			"http://deb.debian.org/debian-security bookworm-security main"}},
		{"6.12", []string{"http://deb.debian.org/debian bookworm-backports main"}},
	}
}

// Kernel is one that is unpacked and can be booted.
type Kernel struct {
	Series  string
	Package string // name_version of the Debian package
	Version string // as uname -r has it
	folder  string
}

func (k Kernel) image() string   { return filepath.Join(k.folder, "boot", "vmlinuz-"+k.Version) }
func (k Kernel) modules() string { return filepath.Join(k.folder, "lib", "modules", k.Version) }

// metapackage depends on the newest kernel of a suite.
const metapackage = "linux-image-cloud-amd64"

// Fetch returns the newest kernel of r that was ever fetched, and downloads one where there is none, or where update
// is true. It lies in the user's cache, and appears there whole or not at all.
func (r Release) Fetch(ctx context.Context, update bool) (Kernel, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return Kernel{}, fmt.Errorf("find a folder for kernels: %w", err)
	}
	cache = filepath.Join(cache, "raven", "kernels")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Kernel{}, fmt.Errorf("make a folder for kernels: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return Kernel{}, fmt.Errorf("open the lock of the kernels: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return Kernel{}, fmt.Errorf("lock the kernels: %w", err)
	}
	folder := filepath.Join(cache, r.Series)
	k, err := open(r.Series, folder)
	if err == nil && !update || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	work, err := os.MkdirTemp(cache, "fetching-")
	if err != nil {
		return Kernel{}, fmt.Errorf("make a folder for the kernel %s: %w", r.Series, err)
	}
	defer os.RemoveAll(work)
	if err := r.unpack(ctx, work); err != nil {
		return Kernel{}, fmt.Errorf("fetch a kernel %s: %w", r.Series, err)
	}
	if err := os.RemoveAll(folder); err != nil {
		return Kernel{}, fmt.Errorf("remove the old kernel %s: %w", r.Series, err)
	}
	if err := os.Rename(filepath.Join(work, "root"), folder); err != nil {
		return Kernel{}, fmt.Errorf("keep the kernel %s: %w", r.Series, err)
	}
	return open(r.Series, folder)
}

func open(series, folder string) (Kernel, error) {
	name, err := os.ReadFile(filepath.Join(folder, "package"))
	if err != nil {
		return Kernel{}, fmt.Errorf("read the kernel %s: %w", series, err)
	}
	images, err := filepath.Glob(filepath.Join(folder, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return Kernel{}, fmt.Errorf("%s holds %d kernels instead of one: remove it (%v)", folder, len(images), err)
	}
	return Kernel{Series: series, Package: strings.TrimSpace(string(name)), folder: folder,
		Version: strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")}, nil
}

// unpack downloads the newest kernel into work/root. The machine's own package lists stay as they are: the suite may be
// another than the machine's.
func (r Release) unpack(ctx context.Context, work string) error {
	root := filepath.Join(work, "root")
	for _, d := range []string{"lists/partial", "cache/archives/partial", "root"} {
		if err := os.MkdirAll(filepath.Join(work, d), 0o755); err != nil {
			return err
		}
	}
	var sources strings.Builder
	for _, s := range r.sources {
		fmt.Fprintf(&sources, "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s\n", s)
	}
	list := filepath.Join(work, "sources.list")
	if err := os.WriteFile(list, []byte(sources.String()), 0o644); err != nil {
		return err
	}
	apt := func(tool string, args ...string) (string, error) {
		return output(ctx, work, tool, append([]string{"-o", "Dir::Etc::sourcelist=" + list, "-o", "Dir::Etc::sourceparts=-",
			"-o", "Dir::State::lists=" + filepath.Join(work, "lists"), "-o", "Dir::Cache=" + filepath.Join(work, "cache"),
			"-o", "APT::Sandbox::User=root"}, args...)...)
	}
	if _, err := apt("apt-get", "update"); err != nil {
		return err
	}
	depends, err := apt("apt-cache", "depends", metapackage)
	if err != nil {
		return err
	}
	var name string
	for line := range strings.Lines(depends) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok {
			name = "linux-image-" + n
		}
	}
	if name == "" {
		return fmt.Errorf("%s depends on no kernel: %s", metapackage, depends)
	}
	if _, err := apt("apt-get", "download", name); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("apt-get download %s brought %d files (%v)", name, len(debs), err)
	}
	if _, err := output(ctx, work, "dpkg-deb", "-x", debs[0], root); err != nil {
		return err
	}
	version := strings.TrimPrefix(name, "linux-image-")
	if _, err := output(ctx, work, "depmod", "-b", root, version); err != nil {
		return err
	}
	pkg := strings.TrimSuffix(filepath.Base(debs[0]), "_amd64.deb")
	return os.WriteFile(filepath.Join(root, "package"), []byte(pkg+"\n"), 0o644)
}

func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", cmd, err, out)
	}
	return string(out), nil
}

// closure lists the files of the named modules and of those they need, in the order in which they can be loaded. What is
// built into the kernel has no file.
func (k Kernel) closure(names ...string) ([]string, error) {
	f, err := os.Open(filepath.Join(k.modules(), "modules.dep"))
	if err != nil {
		return nil, fmt.Errorf("read the modules of %s: %w", k.Version, err)
	}
	defer f.Close()
	needs := map[string][]string{} // module's name -> its file, then those it needs
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		file, others, _ := strings.Cut(lines.Text(), ":")
		needs[moduleName(file)] = append([]string{file}, strings.Fields(others)...)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the modules of %s: %w", k.Version, err)
	}
	var files []string
	for _, name := range names {
		chain := slices.Clone(needs[name])
		slices.Reverse(chain) // modules.dep names what is needed last at the end
		for _, file := range chain {
			if !slices.Contains(files, file) {
				files = append(files, file)
			}
		}
	}
	return files, nil
}

// moduleName makes kernel/fs/fuse/virtio-fs.ko.xz to virtio_fs.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".")
	return strings.ReplaceAll(name, "-", "_")
}
