package kernels

import "time"

// Job is one command that a guest runs.
type Job struct {
	Command []string
	Env     []string      // NAME=value, besides PATH and HOME
	Modules []string      // kernel modules to load first; what is built in is no mistake
	Dir     string        // working directory; empty: /
	Memory  int           // MiB; 0: 1024
	Limit   time.Duration // of the whole run, the boot included
}

// Outcome is what came of a Job.
type Outcome struct {
	Status int    // the command's exit status
	Output string // what it wrote to standard output and error
	Report string // what it wrote to the file that ReportVariable names
	Kernel string // uname -r of the guest
	Took   time.Duration
}

// ReportVariable is the environment variable by which a command in a guest learns where to write what is for the machine
// that runs it, and is no output.
const ReportVariable = "RAVEN_KERNELS_REPORT"

// SmallMapsVariable is the environment variable that asks the tests of single packets for small maps: an emulated
// processor takes most of the time to lay out room for flows that no packet of them needs.
const SmallMapsVariable = "RAVEN_KERNELS_SMALL_MAPS"

// What the serial ports of a guest are for, in order; the first is the kernel's console.
const (
	portOutput = "/dev/ttyS1"
	portResult = "/dev/ttyS2"
	portReport = "/dev/ttyS3"
)

// Places inside the first root of a guest.
const (
	pathJob     = "/job.json"
	pathModules = "/modules"
	rootTag     = "root"
)

// guestJob is what the guest reads.
type guestJob struct {
	Job
	Version string   // of the kernel it should be
	Tree    string   // the folder of its modules on the machine
	Boot    []string // modules that the guest needs to see its root, in order, below pathModules
}

// guestResult is what it answers.
type guestResult struct {
	Kernel string
	Status int
	Error  string // why the command could not be run
}
