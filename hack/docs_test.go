package hack

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	target = regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`)
	// A call of make in a code span, or at the beginning of a line of a code block, after its variables.
	inSpan = regexp.MustCompile("`(?:[A-Z_]+=[^ `]* )*make ([a-z][a-z0-9-]*)")
	inLine = regexp.MustCompile(`^\s*(?:[A-Z_]+=\S* )*make ([a-z][a-z0-9-]*)`)
)

func TestTheMakeTargetsInTheDocsExist(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range target.FindAllStringSubmatch(string(makefile), -1) {
		known[m[1]] = true
	}
	pages := []string{"../README.md", "../CONTRIBUTING.md"}
	for _, pattern := range []string{"../docs/*.md", "../docs/design/*.md"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, more...)
	}
	found := 0
	check := func(page, name string) {
		found++
		if !known[name] {
			t.Errorf("%s: there is no make %s", page, name)
		}
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		fenced := false
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				fenced = !fenced
				continue
			}
			for _, m := range inSpan.FindAllStringSubmatch(line, -1) {
				check(page, m[1])
			}
			if m := inLine.FindStringSubmatch(line); m != nil && (fenced || strings.HasPrefix(line, "    ")) {
				check(page, m[1])
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d calls of make were found", found)
	}
}
