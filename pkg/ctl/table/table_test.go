package table

import (
	"strings"
	"testing"
)

func TestColumnsAlignAndTheLastOneWrapsWithinTheWidth(t *testing.T) {
	tab := Table{Heading: []string{"NAME", "MEANING"}}
	tab.Add("a", "short")
	tab.Add("longer-name", strings.Repeat("word ", 40))
	tab.Add("", "")
	var b strings.Builder
	if err := tab.Write(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if lines[0] != "NAME         MEANING" || lines[1] != "a            short" {
		t.Errorf("the columns do not align:\n%s", b.String())
	}
	if len(lines) != 6 || !strings.HasPrefix(lines[3], strings.Repeat(" ", 13)+"word") {
		t.Errorf("the long text is not wrapped below its column:\n%s", b.String())
	}
	if lines[5] != "-            -" {
		t.Errorf("empty cells show as %q", lines[5])
	}
	for _, l := range lines {
		if len(l) > Width {
			t.Errorf("a line of %d columns: %q", len(l), l)
		}
	}
}

func TestAnEmptyTablePrintsNothing(t *testing.T) {
	var b strings.Builder
	if err := (&Table{}).Write(&b); err != nil || b.Len() > 0 {
		t.Errorf("%q, %v", b.String(), err)
	}
}

func TestColumnsThatAreTooWideAreCut(t *testing.T) {
	tab := Table{}
	tab.Add(strings.Repeat("a", 63), strings.Repeat("b", 63), "the end of it")
	var b strings.Builder
	if err := tab.Write(&b); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); len([]rune(got)) > Width+1 || !strings.Contains(got, "a…  b") || !strings.HasSuffix(got, "  the end of it\n") {
		t.Errorf("%q", got)
	}
}
