package e2e_test

import (
	"testing"

	"github.com/ravencni/raven/test/lab"
)

// TestTheTutorialOnARealKubernetes goes through the tutorial, and then through the life of the installation.
func TestTheTutorialOnARealKubernetes(t *testing.T) {
	newWorld(t, fromKubelets(withOutsider(lab.Tutorial()))).through(
		step{"nodes run pods before Raven is there", podsBeforeRaven},
		step{"label nodes and deploy", deploy},
		step{"gateways", applyGateways},
		step{"a node of no region is left alone", leftAlone},
		step{"pods ping across edges", pingAcrossEdges},
		step{"nodes ping across edges", nodesPingAcrossEdges},
		step{"strongSwan lists the tunnels", associations},
		step{"pods that were there before are accelerated", earlyPodsAreAccelerated},
		step{"the tools reach every node from anywhere", toolsFromAnywhere},
		step{"services and names from every region", services},
		step{"rolling update to other maps and back", rollingUpdate},
		step{"WireGuard and back to IPsec", switchDrivers},
		step{"the pod that holds tunnels is replaced", replaceTunnels},
		step{"two hundred pods leave nothing", manyPods},
		step{"others write the network's configuration", fights},
		step{"idle agents", idle},
		step{"pods start while there are no agents", podsWithoutAgents},
		step{"undeploy after the agents were deleted by hand", undeployWithoutAgents},
		step{"undeploy", undeploy},
	)
}

// TestNodesByNameAndHelm has regions whose nodes have one another's addresses, reaches them by name, and installs, updates and
// removes by Helm.
func TestNodesByNameAndHelm(t *testing.T) {
	newWorld(t, fromKubelets(namesakes())).through(
		step{"nodes run pods before Raven is there", podsBeforeRaven},
		step{"label nodes and install", helmInstall},
		step{"gateways", applyGateways},
		step{"the API server reaches nodes by name", egressSelector},
		step{"kubectl works for every node", bySelector},
		step{"a webhook and kubectl top by the egress selector", behindAPIServer},
		step{"curl by name from another region", curlReaches},
		step{"kubectl works by DNS", byDNS},
		step{"pods talk although their nodes' addresses conflict", namesakesTalk},
		step{"helm upgrade under ping", helmUpgrade},
		step{"helm uninstall", helmUninstall},
	)
}
