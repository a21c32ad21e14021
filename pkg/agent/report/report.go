// Package report tells people about problems: one log line when a problem appears or changes, one when it goes away,
// and nothing in between.
package report

import (
	"log/slog"
	"sync"

	"github.com/ravencni/raven/pkg/topology"
)

// Problems logs the differences between one set of problems and the next. The zero value is not usable; see New.
type Problems struct {
	log  *slog.Logger
	mu   sync.Mutex
	last map[topology.Problem]bool
	// elsewhere is the last count of problems that other nodes name.
	elsewhere int
}

// New makes a Problems without any.
func New(log *slog.Logger) *Problems {
	return &Problems{log: log, last: map[topology.Problem]bool{}}
}

// Set logs what appeared and what went away since the last Set, and how many problems other nodes name where that is
// another number.
func (p *Problems) Set(problems []topology.Problem, elsewhere int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if elsewhere != p.elsewhere {
		p.elsewhere = elsewhere
		p.log.Info("problems elsewhere in the cluster, named by the gateways concerned", "count", elsewhere)
	}
	type item struct{ object, reason string }
	now := make(map[topology.Problem]bool, len(problems))
	left := make(map[item]bool, len(problems))
	for _, problem := range problems {
		if now[problem] {
			continue
		}
		now[problem] = true
		left[item{problem.Object, problem.Reason}] = true
		if !p.last[problem] {
			p.log.Warn("problem", "object", problem.Object, "reason", problem.Reason, "message", problem.Message)
		}
	}
	for problem := range p.last {
		// A changed message of the same problem was logged as a line of its own.
		if !left[item{problem.Object, problem.Reason}] {
			p.log.Info("problem gone", "object", problem.Object, "reason", problem.Reason)
		}
	}
	p.last = now
}
