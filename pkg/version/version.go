// Package version says which build of Raven a binary is.
package version

import "runtime/debug"

// version is set by the linker: -X github.com/ravencni/raven/pkg/version.version=v1.2.3. The Makefile passes what
// `git describe` says.
var version string

// String returns the version that the linker was given; without one, the version and revision that the Go toolchain
// recorded in the binary; failing both, "unknown". It is never empty.
func String() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	return fromBuildInfo(info, ok)
}

func fromBuildInfo(info *debug.BuildInfo, ok bool) string {
	if !ok {
		return "unknown"
	}
	// A build in a git checkout records a pseudo-version here since Go 1.24, and `go install module@v` the tag.
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && s.Value != "" {
			return s.Value
		}
	}
	return "unknown"
}
