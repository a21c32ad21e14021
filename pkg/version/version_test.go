package version

import (
	"runtime/debug"
	"testing"
)

func TestTheLinkersWordWinsOverTheToolchains(t *testing.T) {
	t.Cleanup(func() { version = "" })
	version = "v1.2.3"
	if got := String(); got != "v1.2.3" {
		t.Errorf("String() = %q with version v1.2.3 linked in", got)
	}
}

func TestABuildWithoutTheMakefileStillNamesItself(t *testing.T) {
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123abcd"}
	for _, c := range []struct {
		name string
		info *debug.BuildInfo
		want string
	}{
		{"no build info", nil, "unknown"},
		{"a tagged module", &debug.BuildInfo{Main: debug.Module{Version: "v0.5.0"}}, "v0.5.0"},
		{"a checkout without tags", &debug.BuildInfo{
			Main: debug.Module{Version: "(devel)"}, Settings: []debug.BuildSetting{revision},
		}, "0123abcd"},
		{"nothing recorded", &debug.BuildInfo{}, "unknown"},
	} {
		if got := fromBuildInfo(c.info, c.info != nil); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	if String() == "" {
		t.Error("String() is empty")
	}
}
