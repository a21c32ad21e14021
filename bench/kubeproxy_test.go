package bench

import (
	"strings"
	"testing"
)

func TestKubeProxyHasAsManyRulesAsAskedFor(t *testing.T) {
	rules := func(n int) int { return strings.Count(kubeProxy(n), "\n-A ") }
	if fixed := rules(0); rules(1000)-fixed != 1000 || rules(10_000)-fixed != 10_000 {
		t.Errorf("%d fixed rules; asked for 1,000 more: %d, for 10,000 more: %d", fixed, rules(1000)-fixed, rules(10_000)-fixed)
	}
}
