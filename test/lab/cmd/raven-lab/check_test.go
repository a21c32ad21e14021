package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/ravencni/raven/test/kernels"
	"github.com/ravencni/raven/test/lab/checks"
)

func TestOtherKernelsRunAllChecks(t *testing.T) {
	if _, err := choose(kernels.LabChecks); err != nil {
		t.Error(err)
	}
	for _, c := range checks.All() {
		if !slices.Contains(kernels.LabChecks, c.Name) && !strings.HasPrefix(c.Name, checks.ReachAll.Name+"-") {
			t.Errorf("%s is not among them", c.Name)
		}
	}
}
