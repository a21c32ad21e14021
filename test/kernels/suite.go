package kernels

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Suite is what one boot of a kernel tells: one check, or each check of the lab.
type Suite struct {
	Name   string
	Driver string // what carries the traffic between regions: DriverNone where none does
	// Checks are the rows of the matrix that this suite fills; none: one of the suite's own name.
	Checks []string
	// Job is what runs; nil: nothing does, and Reason says why.
	Job    *Job
	Reason string
	// Counts says that the report holds the verifier's instruction counts.
	Counts bool
	// read takes the outcome apart; nil: the exit status decides.
	read func(Outcome) map[string]Cell
}

// Drivers, as the matrix names them.
const (
	DriverNone      = "-"
	DriverWireGuard = "wireguard (kernel)"
	DriverIPsec     = "ipsec (kernel)"
)

// LabChecks are the lab's checks that other kernels run: those that ask something of the kernel. All of them run on the
// machine's own kernel in make test-lab.
var LabChecks = []string{
	"attachments", "attachments-clsact", "bpftool-dump", "redirect-pod", "redirect-node", "redirect-ipv6", "mtu",
	"virtual-ip", "masquerade", "policy-reject", "spoofing", "vxlan-xdp", "foreign-use", "owned-come-back", "ten-applies",
}

// Suites are all, in the order in which they run. Programs lie in bin, sources in tree.
func Suites(bin, tree string) []Suite {
	tests := func(name, pkg string, limit time.Duration, args ...string) *Job {
		return &Job{Command: append([]string{filepath.Join(bin, name), "-test.v"}, args...), Dir: filepath.Join(tree, pkg),
			Modules: []string{"nf_conntrack", "tun"}, Limit: limit}
	}
	kernelWireGuard := tests("wireguard.test", "pkg/tunnel/wireguard", 30*time.Minute,
		"-test.run", "^(TestTwoGatewaysExchange|TestTwoEdgesBehindNAT|TestALearnedEndpointThatMoves|TestARestartedAgent)")
	kernelWireGuard.Env = []string{"RAVEN_TEST_WIREGUARD=kernel"}
	lab := &Job{Command: append([]string{filepath.Join(bin, "raven-lab"), "check", "--report"}, LabChecks...), Dir: tree, Memory: 2048,
		Modules: []string{"wireguard", "vxlan"}, Limit: 45 * time.Minute}
	kernelIPsec := tests("ipsec.test", "pkg/tunnel/ipsec", 30*time.Minute,
		"-test.run", "^(TestTwoGateways|TestRenewingAllKeys|TestCharonsDeath|TestStatesGrow|TestWhatADeadCharon|TestEachPeerHas|TestTheDriver)")
	kernelIPsec.Env = []string{"RAVEN_TEST_IPSEC=1", "RAVEN_TEST_IPSEC_ESP=kernel"}
	// What a packet costs is no question to an emulated processor.
	packets := tests("bpf.test", "bpf", 30*time.Minute, "-test.skip", verifierTest+"|^TestCostOfEachProgramPerPacket$|^TestGateOf")
	packets.Env = []string{SmallMapsVariable + "=1"}
	return []Suite{
		{Name: "programs load", Driver: DriverNone, Counts: true, Job: tests("bpf.test", "bpf", 15*time.Minute, "-test.run", verifierTest)},
		{Name: "packets", Driver: DriverNone, Job: packets},
		{Name: "attachments, restarts, upgrades", Driver: DriverNone, Job: tests("accel.test", "pkg/datapath/accel", 30*time.Minute,
			"-test.run", "Attached|RestartedDaemon|Cleanup|ByHandComesBack|Upgrade|Foreign|Layout|Kfunc|TCX")},
		{Name: "driver", Driver: DriverWireGuard, Job: kernelWireGuard},
		{Name: "driver", Driver: DriverIPsec, Job: kernelIPsec},
		{Name: "lab", Driver: DriverWireGuard, Checks: LabChecks, Job: lab, read: readLab},
		{Name: "lab", Driver: DriverIPsec, Checks: LabChecks, Reason: "the kernel's ESP is not the driver's default yet, and the lab's agents do not ask for it"},
	}
}

const verifierTest = "^TestEachProgramIsEasyForTheVerifier$"

// rows are the checks that a suite fills.
func (s Suite) rows() []string {
	if len(s.Checks) > 0 {
		return s.Checks
	}
	return []string{s.Name}
}

// Cells says what an outcome, or the error that came instead, means for each of the suite's checks.
func (s Suite) Cells(o Outcome, err error) map[string]Cell {
	cells := map[string]Cell{}
	if err == nil && s.read != nil {
		cells = s.read(o)
	}
	for _, row := range s.rows() {
		if _, told := cells[row]; told {
			continue
		}
		switch {
		case s.Job == nil:
			cells[row] = Cell{State: NotRun, Note: s.Reason}
		case err != nil:
			cells[row] = Cell{State: Failed, Note: firstLine(err.Error())}
		case s.read != nil:
			cells[row] = Cell{State: Failed, Note: "said nothing; the last words: " + firstLine(tail(o.Output, 1))}
		case o.Status != 0:
			cells[row] = Cell{State: Failed, Note: cmp.Or(strings.Join(failedTest.FindAllString(o.Output, -1), ", "),
				firstLine(tail(o.Output, 1)))}
		default:
			cells[row] = Cell{State: Passed, Note: fmt.Sprintf("%d tests", len(passedTest.FindAllString(o.Output, -1)))}
		}
	}
	return cells
}

// Lines of go test -v, sub-tests excepted.
var (
	failedTest = regexp.MustCompile(`(?m)^--- FAIL: \S+`)
	passedTest = regexp.MustCompile(`(?m)^--- PASS: \S+`)
)

// LabOutcome is one line of the report of raven-lab check.
type LabOutcome struct {
	Check    string
	Evidence string
	Error    string // empty: it passed
	Seconds  float64
}

func readLab(o Outcome) map[string]Cell {
	cells := map[string]Cell{}
	for line := range strings.Lines(o.Report) {
		var l LabOutcome
		if json.Unmarshal([]byte(line), &l) != nil {
			continue // its check counts as one that said nothing
		}
		c := Cell{State: Passed, Note: l.Evidence}
		if l.Error != "" {
			c = Cell{State: Failed, Note: firstLine(l.Error)}
		}
		cells[l.Check] = c
	}
	return cells
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
