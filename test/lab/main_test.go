package lab_test

import (
	"os"
	"testing"

	"github.com/ravencni/raven/test/lab"
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // every test then says what it misses
	}
	os.Exit(lab.Enclose("test", m.Run))
}
