package main

import (
	"testing"

	"github.com/ravencni/raven/test/kernels"
)

func TestTheChecksThatOtherKernelsRunAreKnown(t *testing.T) {
	if _, err := choose(kernels.LabChecks); err != nil {
		t.Error(err)
	}
}
