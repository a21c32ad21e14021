package e2e_test

import "testing"

// TestTheTutorialOnARealKubernetes goes through the tutorial, and then through the life of the installation. Each step
// stands on those before it.
func TestTheTutorialOnARealKubernetes(t *testing.T) {
	w := newWorld(t)
	for _, step := range []struct {
		name string
		do   func(*world)
	}{
		{"nodes run pods before Raven is there", podsBeforeRaven},
		{"label nodes and deploy", deploy},
		{"gateways", applyGateways},
		{"pods ping across edges", pingAcrossEdges},
		{"nodes ping across edges", nodesPingAcrossEdges},
		{"pods that were there before are accelerated", earlyPodsAreAccelerated},
		{"services and names from every region", services},
		{"pods start while there are no agents", podsWithoutAgents},
		{"rolling update under ping", rollingUpdate},
		{"idle agents", idle},
		{"undeploy", undeploy},
	} {
		w.progress("%s", step.name)
		if !t.Run(step.name, func(t *testing.T) {
			inner := *w
			inner.T = t
			step.do(&inner)
		}) {
			return
		}
	}
}
