package cluster

import (
	"slices"
	"testing"
)

func TestAFlagOfATestTakesThePlaceOfTheUsualOne(t *testing.T) {
	got := override([]string{"--controllers=*,-a", "--leader-elect=false", "--allow"}, []string{"--controllers=*", "--allow=false"})
	if want := []string{"--leader-elect=false", "--controllers=*", "--allow=false"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
