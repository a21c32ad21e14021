package kernels

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	drivers "github.com/ravencni/raven/pkg/tunnel/conformance"
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
	DriverBoth      = "both (kernel)"
)

// LabChecks are the lab's checks: raven-lab check lists them.
var LabChecks = []string{
	"reach", "capture-overlay", "attachments", "attachments-clsact", "bpftool-dump", "redirect-pod", "redirect-node", "redirect-ipv6", "mtu",
	"virtual-ip", "masquerade", "policy-reject", "policy-engines", "policy-revoke", "spoofing", "bad-input", "ten-applies",
	"owned-come-back", "survive-kill", "snapshot-start", "says-baseline", "vxlan-xdp", "handshake-flood", "foreign-use", "repair-routes",
}

// Suites are all, in the order in which they run. Programs lie in bin, sources in tree.
func Suites(bin, tree string) []Suite {
	tests := func(name, pkg string, limit time.Duration, args ...string) *Job {
		return &Job{Command: append([]string{filepath.Join(bin, name), "-test.v"}, args...), Dir: filepath.Join(tree, pkg),
			Modules: []string{"nf_conntrack", "tun"}, Limit: limit}
	}
	kernelWireGuard := tests("wireguard.test", "pkg/tunnel/wireguard", 30*time.Minute,
		"-test.run", "^(TestTwoGatewaysExchange|TestTwoEdgesBehindNAT|TestALearnedEndpointThatMoves|TestARestartedAgent|TestAHundred)")
	kernelWireGuard.Env = []string{"RAVEN_TEST_WIREGUARD=kernel"}
	lab := func(driver string, checks ...string) *Job {
		command := append([]string{filepath.Join(bin, "raven-lab"), "check", "--report", "--vpn-driver=" + driver,
			"--agent-flag=--ipsec-esp=kernel"}, checks...)
		return &Job{Command: command, Dir: tree, Memory: 2048, Limit: 3 * time.Hour,
			Modules: []string{"wireguard", "vxlan", "tun", "nfnetlink_queue"}, Env: []string{drivers.SlowVariable + "=1"}}
	}
	conformance := func(driver string, modules ...string) *Job {
		job := tests("conformance.test", "pkg/tunnel/conformance", 30*time.Minute, "-test.run", "^TestEveryDriver$")
		job.Env = []string{drivers.Variable + "=" + driver, drivers.SlowVariable + "=1"}
		job.Modules = append(job.Modules, modules...)
		return job
	}
	kernelIPsec := tests("ipsec.test", "pkg/tunnel/ipsec", 30*time.Minute,
		"-test.run", "^(TestTwoGateways|TestRenewing|TestCharonsDeath|TestStatesGrow|TestWhatADeadCharon|TestEachPeerHas|TestAKernelsEnd|TestTheDriver|TestAHundred)")
	kernelIPsec.Env = []string{"RAVEN_TEST_IPSEC=1", "RAVEN_TEST_IPSEC_ESP=kernel", drivers.SlowVariable + "=1"}
	switching := tests("lab.test", "test/lab", 30*time.Minute, "-test.run", "^TestSwitching")
	switching.Env = []string{"RAVEN_TEST_IPSEC=1", drivers.SlowVariable + "=1"}
	switching.Memory, switching.Modules = 2048, []string{"wireguard", "vxlan", "tun", "nf_conntrack"}
	// What a packet costs is no question to an emulated processor.
	packets := tests("bpf.test", "bpf", 30*time.Minute, "-test.skip", verifierTest+"|^TestCostOfEachProgramPerPacket$|^TestGateOf")
	packets.Env = []string{SmallMapsVariable + "=1"}
	return []Suite{
		{Name: "programs load", Driver: DriverNone, Counts: true, Job: tests("bpf.test", "bpf", 15*time.Minute, "-test.run", verifierTest)},
		{Name: "packets", Driver: DriverNone, Job: packets},
		{Name: "attachments, restarts, upgrades", Driver: DriverNone, Job: tests("accel.test", "pkg/datapath/accel", 30*time.Minute,
			"-test.run", "Attached|RestartedDaemon|Cleanup|ByHandComesBack|Upgrade|Foreign|Layout|Kfunc|TCX")},
		{Name: "conformance", Driver: DriverWireGuard, Checks: drivers.Behaviours, Job: conformance("wireguard-kernel", "wireguard"), read: readSubtests},
		{Name: "conformance", Driver: DriverIPsec, Checks: drivers.Behaviours, Job: conformance("ipsec-kernel"), read: readSubtests},
		{Name: "driver", Driver: DriverWireGuard, Job: kernelWireGuard},
		{Name: "driver", Driver: DriverIPsec, Job: kernelIPsec},
		{Name: "switching", Driver: DriverBoth, Job: switching},
		{Name: "lab", Driver: DriverWireGuard, Checks: LabChecks, Job: lab("wireguard", LabChecks...), read: readLab},
		{Name: "lab", Driver: DriverIPsec, Checks: LabChecks, Job: lab("ipsec", LabChecks...), read: readLab},
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

// subtest is a line about a test two levels below the top, and skipped the line with the reason above one.
var subtest = regexp.MustCompile(`(?m)^ {8}--- (PASS|FAIL|SKIP): [^/\s]+/[^/\s]+/(\S+) \(([0-9.]+)s\)`)

// readSubtests takes the output of tests apart whose checks are subtests of subtests.
func readSubtests(o Outcome) map[string]Cell {
	cells := map[string]Cell{}
	for _, m := range subtest.FindAllStringSubmatch(o.Output, -1) {
		switch m[1] {
		case "PASS":
			cells[m[2]] = Cell{State: Passed, Note: m[3] + " s"}
		case "SKIP":
			cells[m[2]] = Cell{State: NotRun, Note: reasonOf(o.Output, m[2])}
		default:
			cells[m[2]] = Cell{State: Failed, Note: cmp.Or(reasonOf(o.Output, m[2]), "it gave no reason")}
		}
	}
	return cells
}

// reasonOf is the last that a subtest logged.
func reasonOf(output, name string) (reason string) {
	_, after, _ := strings.Cut(output, "/"+name+"\n")
	for line := range strings.Lines(after) {
		if strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			break
		}
		if m := logged.FindStringSubmatch(line); m != nil {
			reason = m[1]
		}
	}
	return reason
}

var logged = regexp.MustCompile(`^\s+\S+_test\.go:\d+: (.*)`)

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
