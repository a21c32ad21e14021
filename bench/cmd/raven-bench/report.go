package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/bench"
)

func reportCommand() *cobra.Command {
	var folder, readme string
	cmd := &cobra.Command{
		Use: "report", Short: "Write tables, plots and the README's figures from latest.json", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return report(folder, readme) },
	}
	cmd.Flags().StringVar(&folder, "results", "bench/results", "folder of "+bench.LatestFile)
	cmd.Flags().StringVar(&readme, "readme", "README.md", "file whose figures are replaced; empty: none")
	return cmd
}

func report(folder, readme string) error {
	r, err := bench.Read(filepath.Join(folder, bench.LatestFile))
	if err != nil {
		return err
	}
	files := map[string]string{filepath.Join(folder, "latest.md"): r.Markdown()}
	for tunnel := range r.Tunnels {
		files[filepath.Join(folder, tunnel+".svg")] = r.Plot(tunnel)
	}
	if readme != "" {
		text, err := os.ReadFile(readme)
		if err != nil {
			return fmt.Errorf("read the README: %w", err)
		}
		if files[readme], err = r.PutFigures(string(text)); err != nil {
			return err
		}
	}
	for file, text := range files {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write a report: %w", err)
		}
	}
	return nil
}
