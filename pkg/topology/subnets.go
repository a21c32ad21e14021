package topology

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// memberKey names a node as one Gateway's status lists it.
type memberKey struct{ gateway, node string }

// statusSubnets collects Gateway.status.nodes[].subnets.
func statusSubnets(regions []*region) map[memberKey][]string {
	out := make(map[memberKey][]string)
	for _, r := range regions {
		for i := range r.gw.Status.Nodes {
			info := &r.gw.Status.Nodes[i]
			if len(info.Subnets) > 0 {
				out[memberKey{r.name, info.NodeName}] = info.Subnets
			}
		}
	}
	return out
}

// PodCIDRs are the prefixes that Kubernetes allocated to a node, as written: spec.podCIDRs or, where that is absent,
// spec.podCIDR.
func PodCIDRs(obj *corev1.Node) []string {
	if len(obj.Spec.PodCIDRs) == 0 && obj.Spec.PodCIDR != "" {
		return []string{obj.Spec.PodCIDR}
	}
	return obj.Spec.PodCIDRs
}

// readSubnets finds the node's pod prefixes: those of its entry in its Gateway's status where that has any, since the
// controller knows of address managers other than Kubernetes' own, or else the Node's spec.podCIDRs. Prefixes of the
// Node are checked and reported in both cases. On the active gateway the prefixes of the annotation
// raven.openyurt.io/extra-allowed-source-cidrs are kept apart, wherever they come from.
func (m *model) readSubnets(n *node, status map[memberKey][]string) {
	own := PodCIDRs(n.obj)
	listed := status[memberKey{n.region.name, n.name}]
	if len(own) == 0 && len(listed) == 0 {
		m.problems.add(nodeObject(n.name), ReasonMissingPodCIDR,
			"the node has no spec.podCIDRs, so its pods are not reachable from other regions: let the controller manager allocate node CIDRs")
	}
	allocated := m.readPrefixes(nodeObject(n.name), own)
	n.pods = allocated
	if n == n.region.active {
		n.extras = m.readExtras(n.region)
	}
	if len(listed) > 0 {
		n.pods = slices.DeleteFunc(m.readPrefixes(gatewayObject(n.region.name), listed), func(p netip.Prefix) bool {
			return slices.Contains(n.extras, p) && !slices.Contains(allocated, p)
		})
	}
	n.extras = slices.DeleteFunc(n.extras, func(p netip.Prefix) bool {
		return slices.Contains(n.pods, p) || p == hostPrefix(n.ip4) || p == hostPrefix(n.ip6)
	})
	if n.underlay.IsValid() {
		m.checkFamilies(n)
	}
}

func (m *model) readExtras(r *region) []netip.Prefix {
	text := r.gw.Annotations[v1beta1.AnnotationExtraSourceCIDRs]
	if strings.TrimSpace(text) == "" {
		return nil
	}
	return m.readPrefixes(gatewayObject(r.name), strings.Split(text, ","))
}

// readPrefixes parses what it can and reports the rest; the result is sorted and has no duplicates.
func (m *model) readPrefixes(object ref, texts []string) []netip.Prefix {
	if len(texts) == 0 {
		return nil
	}
	out := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		p, err := ParsePrefix(text)
		switch {
		case err == nil:
		case err.used:
			m.problems.add(object, err.Reason, "%s", err.message)
		default:
			m.problems.add(object, err.Reason, "%s; it is left out", err.message)
			continue
		}
		out = append(out, p)
	}
	if len(out) < 2 {
		return out
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// checkFamilies drops and reports prefixes of a family that the node itself has no address in: its kernel has no source
// address for them and most likely no such stack.
func (m *model) checkFamilies(n *node) {
	check := func(object ref, prefixes []netip.Prefix) []netip.Prefix {
		return slices.DeleteFunc(prefixes, func(p netip.Prefix) bool {
			if n.hasFamily(p) {
				return false
			}
			m.problems.add(object, ReasonPrefixFamilyMismatch,
				"prefix %s is left out: node %s has no InternalIP of its family; add one to the kubelet's --node-ip", p, n.name)
			return true
		})
	}
	n.pods = check(nodeObject(n.name), n.pods)
	n.extras = check(gatewayObject(n.region.name), n.extras)
}

func (n *node) hasFamily(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return n.ip4.IsValid()
	}
	return n.ip6.IsValid()
}

// hostPrefix is the /32 or /128 of an address; invalid for the invalid one.
func hostPrefix(a netip.Addr) netip.Prefix {
	if !a.IsValid() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, a.BitLen())
}
