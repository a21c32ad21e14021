package metrics

import (
	"cmp"
	"slices"
	"sync"
)

// Applied is what one applier did since the agent started.
type Applied struct {
	Name                  string
	Runs, Errors, Changes uint64
}

// ledger keeps the sums for those who do not read Prometheus' format.
type ledger struct {
	mu   sync.Mutex
	sums map[string]Applied
}

func (l *ledger) add(applier string, changes int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sums[applier]
	s.Name = applier
	s.Runs++
	s.Changes += uint64(max(0, changes))
	if err != nil {
		s.Errors++
	}
	if l.sums == nil {
		l.sums = map[string]Applied{}
	}
	l.sums[applier] = s
}

// Applied lists the appliers that have run, by name.
func (m *Metrics) Applied() []Applied {
	m.ledger.mu.Lock()
	defer m.ledger.mu.Unlock()
	out := make([]Applied, 0, len(m.ledger.sums))
	for _, s := range m.ledger.sums {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Applied) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
