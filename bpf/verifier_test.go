package bpf

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/ravencni/raven/test/kernels"
	"github.com/ravencni/raven/test/netns"
)

// verifierBudget is a quarter of what the kernel's verifier is willing to process (BPF_COMPLEXITY_LIMIT_INSNS,
// include/linux/bpf.h): kernels differ in what they prune, and a program that comes near the limit on one is refused by
// the next.
const verifierBudget = 1_000_000 / 4

// TestEachProgramIsEasyForTheVerifier also reports the numbers, where another kernel is tested.
func TestEachProgramIsEasyForTheVerifier(t *testing.T) {
	netns.Run(t, func(t *testing.T) {
		processed := map[string]uint32{}
		for name, p := range newNode(t, true, true).programs {
			info, err := p.Info()
			must(t, err)
			n, ok := info.VerifiedInstructions()
			if !ok {
				t.Fatalf("the kernel does not tell how many instructions of %s it processed", name)
			}
			t.Logf("%-20s %6d instructions processed", name, n)
			if n == 0 || n > verifierBudget {
				t.Errorf("%s cost the verifier %d instructions, want between 1 and %d", name, n, verifierBudget)
			}
			processed[name] = n
		}
		if file := os.Getenv(kernels.ReportVariable); file != "" {
			b, err := json.Marshal(processed)
			must(t, err)
			must(t, os.WriteFile(file, append(b, '\n'), 0o600))
		}
	})
}
