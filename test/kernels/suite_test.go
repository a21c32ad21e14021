package kernels

import "testing"

func TestSubtestsFillTheirRows(t *testing.T) {
	const output = `=== RUN   TestEveryDriver
=== RUN   TestEveryDriver/ipsec-kernel
=== RUN   TestEveryDriver/ipsec-kernel/first
    behaviours_test.go:9: told
=== RUN   TestEveryDriver/ipsec-kernel/second
    process_test.go:10: no process holds the tunnels
=== RUN   TestEveryDriver/ipsec-kernel/third
    world_test.go:1: on the way
    world_test.go:2: it lost 7 packets
--- FAIL: TestEveryDriver (3.00s)
    --- FAIL: TestEveryDriver/ipsec-kernel (3.00s)
        --- PASS: TestEveryDriver/ipsec-kernel/first (1.00s)
        --- SKIP: TestEveryDriver/ipsec-kernel/second (0.00s)
        --- FAIL: TestEveryDriver/ipsec-kernel/third (2.00s)
FAIL
`
	s := Suite{Name: "conformance", Driver: DriverIPsec, Checks: []string{"first", "second", "third", "fourth"}, Job: &Job{}, read: readSubtests}
	cells := s.Cells(Outcome{Status: 1, Output: output}, nil)
	for check, want := range map[string]Cell{
		"first": {Passed, "1.00 s"}, "second": {NotRun, "no process holds the tunnels"}, "third": {Failed, "it lost 7 packets"},
		"fourth": {Failed, "said nothing; the last words: FAIL"},
	} {
		if got := cells[check]; got != want {
			t.Errorf("%s is %+v, want %+v", check, got, want)
		}
	}
}
