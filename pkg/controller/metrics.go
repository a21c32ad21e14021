package controller

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/ravencni/raven/pkg/topology"
)

var (
	elections = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "raven_controller_role_changes_total", Help: "Changes of a Gateway's active endpoints, by endpoint type.",
	}, []string{"type"})
	statusWrites = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "raven_controller_status_writes_total", Help: "Writes of a Gateway's status.",
	})
	problems = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "raven_controller_problems", Help: "Inputs that are left out, by reason; the Gateways' conditions name them.",
	}, []string{"reason"})
	foreignFound = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "raven_controller_foreign_controller", Help: "1 where a controller or webhook of OpenYurt works on Gateways.",
	})
)

func init() {
	metrics.Registry.MustRegister(elections, statusWrites, problems, foreignFound)
}

func countProblems(list []topology.Problem) {
	count := map[string]float64{}
	for _, p := range list {
		count[p.Reason]++
	}
	problems.Reset()
	for reason, n := range count {
		problems.WithLabelValues(reason).Set(n)
	}
}
