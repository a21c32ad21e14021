package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/ravencni/raven/pkg/proxy/refusal"
)

// lately is how long ago what the proxy refused is still told.
const lately = 10 * time.Minute

// nothingRefused tells what the node's L7 proxy refused lately. Whose fault that was cannot be told from here, so nothing
// of it is a failure.
func nothingRefused(_ context.Context, s *Subject) (out []Finding) {
	if s.Report == nil {
		return nil
	}
	for _, r := range s.Report.Refused {
		if ago := s.Report.At.Sub(r.Last); ago < lately {
			out = append(out, warn(fmt.Sprintf("the L7 proxy refuses what comes to its front end %s: %s, %d times since it started, the last %v ago",
				r.Front, r.Reason, r.Count, ago.Round(time.Second)), refusal.Reason(r.Reason).Remedy()))
		}
	}
	return out
}
