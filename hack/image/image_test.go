package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ravencni/raven/hack/image/oci"
)

// tree makes a folder with a file, a link and an empty folder, all of a time.
func tree(t *testing.T, content string, at time.Time) string {
	t.Helper()
	dir := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "usr/bin"), 0o755),
		os.Mkdir(filepath.Join(dir, "empty"), 0o755),
		os.WriteFile(filepath.Join(dir, "usr/bin/program"), []byte(content), 0o755),
		os.Symlink("program", filepath.Join(dir, "usr/bin/other")),
		os.Chtimes(filepath.Join(dir, "usr/bin/program"), at, at),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func archive(t *testing.T, folders ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "x.oci.tar")
	o := options{name: "registry.example:5000/raven/x:v1.2.3", entrypoint: "/usr/bin/program", user: "65532", out: out, at: time.Unix(1700000000, 0).UTC()}
	for _, arch := range []string{"amd64", "arm64"} {
		o.platforms = append(o.platforms, platform{arch, folders})
	}
	if err := o.run(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTheSameFilesMakeTheSameArchive(t *testing.T) {
	read := func(content string, at time.Time) []byte {
		text, err := os.ReadFile(archive(t, tree(t, content, at)))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	one := read("content", time.Unix(1, 0))
	if !bytes.Equal(one, read("content", time.Unix(2_000_000_000, 0))) {
		t.Error("the times of files decide the archive")
	}
	if bytes.Equal(one, read("another", time.Unix(1, 0))) {
		t.Error("the contents of files do not decide the archive")
	}
}

func TestAnArchiveReadsAsItWasWritten(t *testing.T) {
	images, err := oci.Open(archive(t, tree(t, "content", time.Now()), t.TempDir()), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		i := images[arch]
		if i.Name != "registry.example:5000/raven/x:v1.2.3" || i.Config.Config.User != "65532" || i.Config.Config.Entrypoint[0] != "/usr/bin/program" {
			t.Errorf("%s: %q %+v", arch, i.Name, i.Config.Config)
		}
		root := t.TempDir()
		if err := i.Unpack(root); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(root, "usr/bin/other"))
		if err != nil || string(text) != "content" {
			t.Errorf("%s: %q, %v", arch, text, err)
		}
		info, err := os.Stat(filepath.Join(root, "usr/bin/program"))
		if err != nil || info.Mode() != 0o755 {
			t.Errorf("%s: %v, %v", arch, info.Mode(), err)
		}
		if _, err := os.Stat(filepath.Join(root, "empty")); err != nil {
			t.Error(err)
		}
	}
}

func TestADamagedArchiveIsRefused(t *testing.T) {
	path := archive(t, tree(t, "content", time.Now()))
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(text, []byte(`"architecture":"arm64"`))
	if i < 0 {
		t.Fatal("no configuration in the archive")
	}
	copy(text[i:], `"architecture":"amd64"`)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := oci.Open(path, t.TempDir()); err == nil {
		t.Error("an archive with a changed blob is read")
	}
}

func TestNamesGetTheRegistryThatKubernetesTakesForGranted(t *testing.T) {
	for name, want := range map[string]string{
		"ravencni/raven-agent:v1":        "docker.io/ravencni/raven-agent:v1",
		"raven-agent:v1":                 "docker.io/library/raven-agent:v1",
		"localhost/raven-agent:v1":       "localhost/raven-agent:v1",
		"registry.example/raven-agent:1": "registry.example/raven-agent:1",
	} {
		if got := fullName(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	for name, ok := range map[string]bool{"a/b:v1": true, "a:5000/b": false, "a:5000/b:v1": true, "b": false} {
		if _, tag, has := cutTag(name); has != ok || ok && tag != "v1" {
			t.Errorf("%s: tag %q, %t", name, tag, has)
		}
	}
}
