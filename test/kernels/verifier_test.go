package kernels

import (
	"io"
	"path/filepath"
	"strings"
	"testing"
)

func TestACountThatRisesFarIsNamed(t *testing.T) {
	recorded := Counts{}
	if err := recorded.Add("6.1", `{"a": 1000, "b": 10}`); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "counts.json")
	if err := recorded.Write(file); err != nil {
		t.Fatal(err)
	}
	recorded, err := ReadCounts(file)
	if err != nil {
		t.Fatal(err)
	}
	for report, want := range map[string]string{
		`{"a": 1250, "b": 1}`:            "",
		`{"a": 1251, "b": 10}`:           "a on 6.1: 1251, recorded 1000",
		`{"a": 1000, "b": 10, "new": 1}`: "new on 6.1: 1, recorded 0",
		`{"a": 0, "b": 10}`:              "a on 6.1: 0, recorded 1000",
	} {
		now := Counts{}
		if err := now.Add("6.1", report); err != nil {
			t.Fatal(err)
		}
		err := now.Compare(io.Discard, recorded)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s gave error %v, want %q", report, err, want)
		}
	}
	if err := (Counts{}).Add("6.1", "nothing"); err == nil {
		t.Error("a report that holds no counts was taken")
	}
}
