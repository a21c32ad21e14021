package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A command in the docs stands at the beginning of a line or of a code span, and ends with that, a pipe, a redirection or a
// comment.
var inDocs = regexp.MustCompile("(?m)(?:^[ \t]*|`)(?:bin/)?(?:ravenctl|kubectl raven) ([^`|>#\n]*)")

func TestTheCommandsInTheDocsAreUnderstood(t *testing.T) {
	pages := map[string]string{}
	read := func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".md" {
			return err
		}
		text, err := os.ReadFile(path)
		pages[path] = string(text)
		return err
	}
	for _, root := range []string{"../../README.md", "../../CONTRIBUTING.md", "../../docs"} {
		if err := filepath.WalkDir(root, read); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range newCommand(nil, nil).root.Commands() {
		pages["the examples of "+c.Name()] = c.Example
	}
	pages["the examples of ravenctl"] = examples
	found := 0
	for page, text := range pages {
		for _, match := range inDocs.FindAllStringSubmatch(text, -1) {
			found++
			if err := understood(strings.Fields(match[1])); err != nil {
				t.Errorf("%s: ravenctl %s: %v", page, strings.TrimSpace(match[1]), err)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d commands were found", found)
	}
}

// understood parses a command without running it.
func understood(args []string) error {
	var out bytes.Buffer
	root := newCommand(&out, &out).root
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		if strings.Contains(err.Error(), "flag needs an argument") {
			return nil // prose about the flag
		}
		return err
	}
	given := cmd.Flags().Args()
	if cmd == root && len(given) == 0 || len(given) == 0 && len(rest) == 0 {
		return nil // prose about the command
	}
	return cmd.ValidateArgs(given)
}
