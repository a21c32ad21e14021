#!/bin/bash
# Applies Raven to the cluster that kubectl reaches, and takes it away.
#
#   deploy.sh deploy      VPN_DRIVER, REPOSITORY and VERSION come from the environment; see docs/install.md
#   deploy.sh undeploy    cleans every node, then deletes everything but the CRDs; CRDS=delete deletes them and all Gateways too
#
# KUBECTL names another kubectl. WAIT bounds the wait for the DaemonSets and the cleanup (default 10m).
set -euo pipefail
cd "$(dirname "$0")/.."

: "${KUBECTL:=kubectl}" "${WAIT:=10m}" "${REPOSITORY:=ravencni}" "${VERSION:=latest}" "${VPN_DRIVER:=}" "${CRDS:=keep}"
least=30 # minor version of Kubernetes 1: admission policies are v1 from there

die() {
	echo "$*" >&2
	exit 1
}
kube() { "$KUBECTL" --namespace kube-system "$@"; }
render() { go run ./hack/render --repository "$REPOSITORY" --version "$VERSION" "$@"; }
apply() { kube apply --server-side --force-conflicts --field-manager raven-deploy --filename -; }
there() { [[ -n $(kube get "$@" --ignore-not-found --output name) ]]; }

# Whether a cleanup of all nodes has ended well, and what follows it was interrupted.
cleaned() { [[ $(kube get job raven-cleanup --ignore-not-found --output 'jsonpath={.status.succeeded}') == 1 ]]; }

check_cluster() {
	command -v "$KUBECTL" >/dev/null || die "make $1 needs kubectl, or KUBECTL=... that names one"
	local answer minor
	answer=$(kube get --raw /version) || die "kubectl does not reach the cluster: see its words above"
	minor=$(sed -n 's/.*"minor": *"\([0-9]*\).*/\1/p' <<<"$answer")
	[[ $answer =~ \"major\":\ *\"1\" && -n $minor ]] || die "cannot tell the cluster's version from: $answer"
	((minor >= least)) || die "this cluster runs Kubernetes 1.$minor: Raven needs 1.$least or later, whose API server" \
		"decides by admission policies which agent may write what"
}

# The user's ConfigMaps are made where they are absent and otherwise left alone, VPN_DRIVER excepted.
configure() {
	local driver
	driver=$(kube get configmap raven-agent-config --ignore-not-found --output 'jsonpath={.data.vpn-driver}')
	case ${VPN_DRIVER:-$driver} in
	ipsec | libreswan | wireguard | '') ;;
	*) die "VPN_DRIVER is ${VPN_DRIVER:-$driver}: use ipsec (alias libreswan) or wireguard" ;;
	esac
	there configmap raven-cfg || kube create --filename manifests/config/switches.yaml
	if ! there configmap raven-agent-config; then
		sed "s/vpn-driver: .*/vpn-driver: ${VPN_DRIVER:-ipsec}/" manifests/config/agent.yaml | kube create --filename -
	elif [[ -n $VPN_DRIVER && $VPN_DRIVER != "$driver" ]]; then
		kube patch configmap raven-agent-config --type merge --patch "{\"data\":{\"vpn-driver\":\"$VPN_DRIVER\"}}"
	fi
}

# The controller makes the Secret where there is none, but one that comes after the agents have begun reaches them a minute
# later, and their tunnels wait for it.
share_key() {
	! there secret raven-agent-secret || return 0
	kube create --filename - <<-END || there secret raven-agent-secret
		{apiVersion: v1, kind: Secret, metadata: {name: raven-agent-secret}, stringData: {vpn-connection-psk: "$(head -c 32 /dev/urandom | base64)"}}
	END
}

deploy() {
	check_cluster deploy
	configure
	share_key
	kube delete job raven-cleanup --ignore-not-found # of an earlier life: nodes are clean no longer
	render manifests | apply
	"$KUBECTL" wait --for=condition=Established --timeout=60s crd/gateways.raven.openyurt.io crd/tunnelendpoints.raven.openyurt.io
	render manifests/workloads | apply
	[[ $WAIT != 0 ]] || return 0
	kube rollout status deployment/raven-controller --timeout "$WAIT"
	kube rollout status daemonset/raven-agent-ds --timeout "$WAIT"
}

undeploy() {
	check_cluster undeploy
	if there daemonset raven-agent-ds || there daemonset raven-tunnel-ds || there daemonset raven-cleanup-ds; then
		local image
		# The images that are there, not those of this checkout.
		image=$(kube get deployment raven-controller --ignore-not-found --output 'jsonpath={.spec.template.spec.containers[0].image}')
		kube delete job raven-cleanup --ignore-not-found
		render manifests/cleanup | sed "s|image: .*/raven-controller:.*|image: ${image:-$REPOSITORY/raven-controller:$VERSION}|" | apply
		if ! kube wait --for=condition=complete --timeout "$WAIT" job/raven-cleanup; then
			kube logs job/raven-cleanup >&2 || true
			die "not every node could be cleaned: see above; make undeploy goes on from there"
		fi
		kube logs job/raven-cleanup || true
	elif cleaned; then
		echo "the nodes were cleaned before: going on from there"
	elif there deployment raven-controller; then
		die "the DaemonSets raven-agent-ds and raven-tunnel-ds were deleted by hand: NO NODE WAS CLEANED, all forward as they last" \
			"did. 'make deploy' and then 'make undeploy' clean them"
	else
		echo "no DaemonSet of Raven's is there, so no node is cleaned. Where nodes still have what it made (ip link show raven0)," \
			"'make deploy' and then 'make undeploy' clean them"
	fi
	local what
	# The Job last: as long as anything else is there, it says that nodes are clean.
	for what in workloads config rbac admission cleanup; do
		render "manifests/$what" | kube delete --ignore-not-found --filename -
	done
	if [[ $CRDS == delete ]]; then
		render manifests/crds | kube delete --ignore-not-found --filename -
	else
		echo "the CRDs and with them all Gateways stay: CRDS=delete make undeploy deletes them, too"
	fi
}

case ${1:-} in
deploy | undeploy) "$1" ;;
*) die "deploy.sh deploy | undeploy" ;;
esac
