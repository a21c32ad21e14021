package gate

import (
	"strings"
	"testing"
)

func TestAValueIsHeldToItsBaseline(t *testing.T) {
	baselines := map[string]float64{"allocations": 100}
	for _, c := range []struct {
		name        string
		value       float64
		fault, hint string
	}{
		{"allocations", 100, "", ""},
		{"allocations", 109, "", ""},
		{"allocations", 111, "over 10 % more than its baseline 100", ""},
		{"allocations", 89, "", "keeps what was won"},
		{"unheard of", 1, "no baseline", ""},
	} {
		fault, hint := Judge(baselines, c.name, c.value, 0.1)
		if (fault == "") != (c.fault == "") || !strings.Contains(fault, c.fault) || (hint == "") != (c.hint == "") || !strings.Contains(hint, c.hint) {
			t.Errorf("%s %g: fault %q, hint %q", c.name, c.value, fault, hint)
		}
	}
}
