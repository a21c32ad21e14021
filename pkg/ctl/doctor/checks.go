package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/pkg/agent/local"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/datapath"
	"github.com/ravencni/raven/pkg/datapath/accel"
	"github.com/ravencni/raven/pkg/datapath/filter"
	"github.com/ravencni/raven/pkg/datapath/overlay"
	"github.com/ravencni/raven/pkg/datapath/route"
	"github.com/ravencni/raven/pkg/datapath/rtnl"
	"github.com/ravencni/raven/pkg/datapath/sysctl"
	"github.com/ravencni/raven/pkg/topology"
)

var checks = []check{
	{"agent", agentRuns},
	{"input", inputApplied},
	{"kernel", kernelFits},
	{"underlay", underlayStands},
	{"clock", clockGoesOn},
	{"sysctls", sysctlsStand},
	{"mtu", mtuFits},
	{"rules", rulesInOrder},
	{"routes", routesStand},
	{"raven0", overlayStands},
	{"tunnel", tunnelStands},
	{"ports", portsBound},
	{"nft", filterStands},
	{"firewall", firewallAdmits},
	{"programs", programsRun},
	{"neighbours", neighboursAnswer},
	{"peers", peersAnswer},
	{"conflicts", noConflicts},
	{"proxy", nothingRefused},
	{"cni", pluginChained},
	{"state", stateKept},
}

func fail(says, remedy string) Finding { return Finding{Level: Fail, Says: says, Remedy: remedy} }
func warn(says, remedy string) Finding { return Finding{Level: Warn, Says: says, Remedy: remedy} }

const restart = "a running agent repairs this: see `journalctl` or the pod's log for why it does not, and start it"

// planned says whether the node should have anything in its kernel.
func (s *Subject) planned() bool {
	return s.Plan != nil && s.Plan.Role != topology.RoleNone && s.Plan.Role != ""
}

func agentRuns(_ context.Context, s *Subject) (out []Finding) {
	if s.Report == nil {
		says := fmt.Sprintf("raven-agent does not run or does not answer: %v", s.NoAgent)
		if !errors.Is(s.NoAgent, local.ErrNoAgent) {
			says = s.NoAgent.Error()
		}
		return []Finding{fail(says, "start it (kubectl -n kube-system get pods -l app=raven-agent -o wide; its log says why it "+
			"ended); traffic goes on as it stands, and nothing is repaired meanwhile")}
	}
	for _, part := range slices.Sorted(maps.Keys(s.Report.Failed)) {
		out = append(out, fail(fmt.Sprintf("%s cannot be applied: %s", part, s.Report.Failed[part]),
			"do what the message says; the agent tries again every five seconds"))
	}
	return out
}

func inputApplied(_ context.Context, s *Subject) (out []Finding) {
	if r := s.Report; s.Plan == nil && r != nil && r.Synced && r.Held == "" && r.Gateways == 0 {
		return []Finding{warn("the cluster has no Gateway yet", "apply a Gateway for each region")}
	}
	if s.Plan == nil {
		return []Finding{fail("no plan is known: neither an agent tells one, nor is there a usable snapshot in "+s.StateDir,
			"start the agent, and see that it reaches the API server")}
	}
	if r := s.Report; r != nil {
		switch {
		case r.Held != "":
			out = append(out, fail("the input is not applied: "+r.Held, "bring the missing objects back; what works goes on working"))
		case !r.Synced:
			out = append(out, warn("the source has not delivered yet: "+r.Waiting, "see that the API server is reachable from here"))
		}
		for _, p := range r.Problems {
			if p.Reason == "NotAccelerated" || strings.HasPrefix(p.Object, "Applier/") {
				continue // told by the checks of programs and agent
			}
			f := warn(fmt.Sprintf("%s: %s: %s", p.Object, p.Reason, p.Message), "correct the object")
			if name, ok := strings.CutPrefix(p.Object, "Node/"); ok {
				f.Node = name
			}
			out = append(out, f)
		}
	}
	if s.Plan.Role == topology.RoleNone {
		out = append(out, warn(fmt.Sprintf("node %s is in no region, or L3 is switched off", s.Node),
			"label the node raven.openyurt.io/gateway=<gateway>, and see enable-l3-tunnel in ConfigMap kube-system/raven-cfg"))
	}
	for _, h := range s.Plan.NextHops {
		if h.Kind == topology.KindUnreachable {
			out = append(out, fail(fmt.Sprintf("%s is unreachable: no gateway leads there", h.ID),
				"see the conditions of that Gateway and of this region's (kubectl describe gateway)"))
		}
	}
	return out
}

func sysctlsStand(ctx context.Context, s *Subject) (out []Finding) {
	if !s.planned() {
		return nil
	}
	differs, err := sysctl.New(sysctl.Options{Acceleration: s.Accelerated, StateDir: s.StateDir}).Deviations(ctx, s.Plan, s.Host)
	for _, d := range differs {
		remedy := "set it back, and see who changes it (sysctl.d, tuned, another agent)"
		if strings.Contains(d, "rp_filter") {
			remedy = "strict filtering drops packets of other regions: set it to 2, and see who changes it"
		}
		out = append(out, fail(d, remedy))
	}
	return append(out, unknown(err)...)
}

// unknown tells what could not be looked at.
func unknown(err error) []Finding {
	if err == nil {
		return nil
	}
	return []Finding{warn("not all could be looked at: "+strings.ReplaceAll(err.Error(), "\n", "; "), "run ravenctl as root on the node")}
}

func rulesInOrder(_ context.Context, s *Subject) (out []Finding) {
	if !s.planned() {
		return nil
	}
	c, err := rtnl.Open()
	if err != nil {
		return unknown(err)
	}
	defer c.Close() // nothing was written
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		rules, err := c.Rules(family)
		if err != nil {
			continue // a kernel without the family
		}
		for _, r := range rules {
			if r.Priority == 0 || r.Priority >= datapath.RulePriority || r.Protocol == datapath.RouteProtocol {
				continue
			}
			says := fmt.Sprintf("a foreign %s rule of priority %d (table %d) stands before Raven's at %d", rtnl.FamilyName(family),
				r.Priority, r.Table, datapath.RulePriority)
			remedy := "give it a priority above 100, or see that its table has no default route"
			if r.Other || r.Incoming != "" {
				out = append(out, warn(says+" and takes some packets", remedy))
			} else {
				out = append(out, fail(says+" and takes all packets", remedy))
			}
		}
	}
	return out
}

func routesStand(ctx context.Context, s *Subject) []Finding {
	if !s.planned() {
		return nil
	}
	differs, err := route.Deviations(ctx, s.Plan, s.Host)
	if s.Report == nil {
		// A plan that was made without an agent may know fewer hosts that stay with the main table.
		differs = slices.DeleteFunc(differs, func(d string) bool { return strings.Contains(d, "throw") })
	}
	return append(few(differs, "to be as planned the kernel lacks: ", restart), unknown(err)...)
}

// few makes findings of at most six texts.
func few(texts []string, before, remedy string) (out []Finding) {
	const shown = 6
	slices.Sort(texts)
	for i, t := range texts {
		if i == shown {
			return append(out, fail(fmt.Sprintf("and %d more of that kind", len(texts)-shown), remedy))
		}
		out = append(out, fail(before+t, remedy))
	}
	return out
}

func overlayStands(ctx context.Context, s *Subject) []Finding {
	if !s.planned() {
		return nil
	}
	differs, err := overlay.Deviations(ctx, s.Plan)
	return append(few(differs, "", restart), unknown(err)...)
}

func filterStands(ctx context.Context, s *Subject) []Finding {
	if !s.planned() || s.HostErr != nil {
		return nil
	}
	differs, err := s.filter().Deviations(ctx, s.Plan, s.Host)
	return append(few(differs, "", restart), unknown(err)...)
}

func (s *Subject) filter() *filter.Applier {
	return filter.New(filter.Options{LoosePodSource: s.Report != nil && s.Report.LoosePodSource})
}

func firewallAdmits(ctx context.Context, s *Subject) (out []Finding) {
	if !s.planned() {
		return nil
	}
	ports := []int{datapath.OverlayPort}
	if s.Plan.Tunnel != nil {
		ports = append(ports, s.Plan.Tunnel.ListenPort)
	}
	in, err := s.filter().Obstacles(ctx, ports...)
	for _, o := range in {
		out = append(out, fail(o, "remove the rule, or put an exception for Raven before it"))
	}
	if s.Report != nil {
		for _, w := range s.Report.Warnings {
			out = append(out, warn(w, "add the rule that the message names"))
		}
	}
	return append(out, unknown(err)...)
}

func programsRun(ctx context.Context, s *Subject) (out []Finding) {
	if r := s.Report; r != nil && r.Datapath == v1beta1.DatapathBaseline && r.Acceleration != "off" {
		out = append(out, warn("nothing is accelerated: "+r.Why, "the kernel's tables forward; remove the cause to be faster"))
	}
	if !s.planned() || !s.Accelerated || s.HostErr != nil {
		return out
	}
	differs, err := accel.Deviations(ctx, s.Plan, s.Host)
	for _, f := range few(differs, "", restart) {
		if strings.Contains(f.Says, " is kept off ") {
			f.Level, f.Remedy = Warn, "such pods are forwarded by the kernel's tables; remove the other program or qdisc to be faster"
		}
		out = append(out, f)
	}
	return append(out, unknown(err)...)
}

func noConflicts(_ context.Context, s *Subject) (out []Finding) {
	if s.Plan == nil {
		return nil
	}
	for _, c := range s.Plan.Conflicts {
		out = append(out, warn(fmt.Sprintf("%s means two things and is left out of L3: %s", c.Prefix, strings.Join(c.Objects, ", ")),
			"give one of them another range; until then its node is reachable by name through the proxy only"))
	}
	return out
}
