package bench

import (
	"slices"
	"testing"
)

func TestPathsAreFoundAgainInAResult(t *testing.T) {
	want := Paths(0, 1000, 10_000)
	r := TunnelResult{Paths: map[string]map[string]Spread{}}
	for _, p := range want {
		r.Paths[p.Name] = map[string]Spread{}
	}
	if got := PathsOf(r); !slices.Equal(got, want) {
		t.Errorf("paths %v, want %v", got, want)
	}
	delete(r.Paths, Direct)
	if got := PathsOf(r); slices.ContainsFunc(got, func(p Path) bool { return p.Name == Direct }) || len(got) != len(want)-1 {
		t.Errorf("paths %v, one of which was not measured", got)
	}
}

func TestOnlyPathsThatDifferInTheirEndsShareALab(t *testing.T) {
	all := Paths(0, 1000)
	for i, p := range all {
		for _, q := range all[i+1:] {
			if share := p.Name == Overlay && q.Name == Gateway; p.sameLab(q) != share {
				t.Errorf("%s and %s share a lab: %v", p.Name, q.Name, !share)
			}
		}
	}
}

func TestAPathThatIsNotThereIsRefused(t *testing.T) {
	if _, err := Select(Paths(), []string{Overlay, "sideways"}); err == nil {
		t.Error("a path that is not there was selected")
	}
	if got, err := Select(Paths(), []string{Direct}); err != nil || len(got) != 1 || got[0].Name != Direct {
		t.Errorf("selected %v, %v", got, err)
	}
}
