package controller

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

// foreign looks for OpenYurt's own Gateway controllers and webhooks, which write or refuse the objects that this
// controller keeps.
type foreign struct {
	live    client.Reader
	analyst *analyst
	every   time.Duration
	now     func() time.Time
	log     *slog.Logger
	last    string
}

// leases that OpenYurt's controllers hold: yurt-manager and, before it, yurt-controller-manager and raven-controller-manager.
var foreignLeases = []string{"yurt-manager", "yurt-controller-manager", "raven-controller-manager"}

// Start implements manager.Runnable.
func (f *foreign) Start(ctx context.Context) error {
	ticker := time.NewTicker(f.every)
	defer ticker.Stop()
	for {
		f.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (f *foreign) NeedLeaderElection() bool { return true }

func (f *foreign) look(ctx context.Context) {
	found, err := f.find(ctx)
	if err != nil {
		if ctx.Err() == nil {
			f.log.Warn("cannot tell whether OpenYurt's controllers are at work", "error", err)
		}
		return // what was known stays
	}
	text := ""
	if len(found) > 0 {
		text = strings.Join(found, ", ") + ": stop it, or two controllers fight over the Gateways: docs/migrate-from-openyurt.md says how"
	}
	foreignFound.Set(float64(min(1, len(found))))
	if text != f.last {
		if text != "" {
			f.log.Warn("a controller or webhook of OpenYurt works on Gateways", "found", text)
		} else {
			f.log.Info("OpenYurt's controllers and webhooks for Gateways are gone")
		}
	}
	f.last = text
	f.analyst.setForeign(text)
}

// find names what is at work, sorted.
func (f *foreign) find(ctx context.Context) ([]string, error) {
	var out []string
	for _, name := range foreignLeases {
		var l coordinationv1.Lease
		switch err := f.live.Get(ctx, client.ObjectKey{Namespace: Namespace, Name: name}, &l); {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return nil, fmt.Errorf("read Lease %s/%s: %w", Namespace, name, err)
		}
		if !held(&l, f.now()) {
			continue
		}
		elects, err := f.elects(ctx, name)
		if err != nil {
			return nil, err
		}
		if elects {
			out = append(out, fmt.Sprintf("Lease %s/%s is held by %s", Namespace, name, *l.Spec.HolderIdentity))
		}
	}
	var validating admissionv1.ValidatingWebhookConfigurationList
	if err := f.live.List(ctx, &validating); err != nil {
		return nil, fmt.Errorf("list the ValidatingWebhookConfigurations: %w", err)
	}
	for i := range validating.Items {
		for _, w := range validating.Items[i].Webhooks {
			if aboutGateways(w.Rules) {
				out = append(out, fmt.Sprintf("ValidatingWebhookConfiguration %s has webhook %s", validating.Items[i].Name, w.Name))
			}
		}
	}
	var mutating admissionv1.MutatingWebhookConfigurationList
	if err := f.live.List(ctx, &mutating); err != nil {
		return nil, fmt.Errorf("list the MutatingWebhookConfigurations: %w", err)
	}
	for i := range mutating.Items {
		for _, w := range mutating.Items[i].Webhooks {
			if aboutGateways(w.Rules) {
				out = append(out, fmt.Sprintf("MutatingWebhookConfiguration %s has webhook %s", mutating.Items[i].Name, w.Name))
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

// elects tells whether the controller behind a Lease may elect gateways: the Deployment of that name does not switch
// gateway-pickup off, or there is none to ask.
func (f *foreign) elects(ctx context.Context, name string) (bool, error) {
	var d appsv1.Deployment
	if err := f.live.Get(ctx, client.ObjectKey{Namespace: Namespace, Name: name}, &d); err != nil {
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return false, fmt.Errorf("read Deployment %s/%s: %w", Namespace, name, err)
	}
	for i := range d.Spec.Template.Spec.Containers {
		c := &d.Spec.Template.Spec.Containers[i]
		for _, word := range slices.Concat(c.Command, c.Args) {
			list, ok := strings.CutPrefix(word, "--controllers=")
			for item := range strings.SplitSeq(list, ",") {
				if off, minus := strings.CutPrefix(strings.TrimSpace(item), "-"); ok && minus && strings.HasPrefix(off, "gateway") && strings.Contains(off, "pickup") {
					return false, nil
				}
			}
		}
	}
	return true, nil
}

// held tells whether a Lease is being renewed. One that ran out is left over from a controller that has ended.
func held(l *coordinationv1.Lease, now time.Time) bool {
	s := &l.Spec
	if s.HolderIdentity == nil || *s.HolderIdentity == "" || s.RenewTime == nil || s.LeaseDurationSeconds == nil {
		return false
	}
	// A minute more, for clocks that differ.
	return now.Before(s.RenewTime.Add(time.Duration(*s.LeaseDurationSeconds)*time.Second + time.Minute))
}

// aboutGateways tells whether a webhook is asked about Gateways by name; one that is asked about everything is no
// business of OpenYurt's.
func aboutGateways(rules []admissionv1.RuleWithOperations) bool {
	return slices.ContainsFunc(rules, func(r admissionv1.RuleWithOperations) bool {
		return slices.Contains(r.APIGroups, v1beta1.GroupVersion.Group) &&
			slices.ContainsFunc(r.Resources, func(name string) bool { return name == "*" || name == "*/*" || strings.HasPrefix(name, "gateways") })
	})
}
