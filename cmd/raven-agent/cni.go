package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/ravencni/raven/pkg/agent"
	"github.com/ravencni/raven/pkg/cni/install"
	"github.com/ravencni/raven/pkg/topology"
)

// checkCNI reads the flags of the plugin's installation.
func (s *settings) checkCNI(bad func(flag, format string, args ...any)) {
	if (s.cniConfDir == "") != (s.cniBinDir == "") {
		bad("cni-conf-dir", "give both --cni-conf-dir and --cni-bin-dir, or neither")
	}
	if s.cniPlugin != "" && s.cniConfDir == "" {
		bad("cni-plugin", "it belongs to --cni-conf-dir")
	}
	for flag, path := range map[string]string{"cni-conf-dir": s.cniConfDir, "cni-bin-dir": s.cniBinDir, "cni-plugin": s.cniPlugin} {
		if path != "" && !filepath.IsAbs(path) {
			bad(flag, "%q is not an absolute path", path)
		}
	}
	if s.cniPlugin == "" {
		if self, err := os.Executable(); err == nil {
			s.cniPlugin = filepath.Join(filepath.Dir(self), install.Type)
		}
	}
}

// installCNI has the agent keep the CNI plugin installed.
func installCNI(p *agent.Parts, s *settings, log *slog.Logger) {
	installer := install.New(install.Options{
		ConfDir: s.cniConfDir, BinDir: s.cniBinDir, Source: s.cniPlugin, Logger: log,
	})
	const name = "cni"
	p.Watchers = append(p.Watchers, agent.Watcher{
		Name: name,
		Run: func(ctx context.Context, changed func(agent.Notice)) error {
			return installer.Run(ctx, func() { changed(agent.Notice{What: "CNI configuration", Part: name}) })
		},
	})
	p.Beside = func() (problems []topology.Problem) {
		for _, p := range installer.Problems() {
			problems = append(problems, topology.Problem(p))
		}
		return problems
	}
}

// withoutCNI takes the plugin out of the configurations before the rest is cleaned up, and its binary away after it: by
// then the runtime has read its configurations anew.
func (s *settings) withoutCNI(ctx context.Context, say func(string), rest func() error) error {
	if s.cniConfDir == "" {
		return rest()
	}
	return errors.Join(
		install.RemoveConfig(ctx, s.cniConfDir, say),
		rest(),
		install.RemoveBinary(s.cniConfDir, s.cniBinDir, say),
	)
}
