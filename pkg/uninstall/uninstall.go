package uninstall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/ravencni/raven/manifests/workloads"
)

const (
	// Namespace of everything that is installed.
	Namespace = "kube-system"
	// AgentSet, TunnelSet and CleanupSet are the names of the DaemonSets.
	AgentSet   = "raven-agent-ds"
	TunnelSet  = "raven-tunnel-ds"
	CleanupSet = "raven-cleanup-ds"
	// componentLabel tells the pods of the three apart.
	componentLabel   = "app.kubernetes.io/component"
	cleanupComponent = "cleanup"
	// pendingLabel is on no node: a cleanup that has it in its selector waits.
	pendingLabel = "raven.openyurt.io/cleanup-pending"
	// poll is between two looks at the cluster.
	poll = time.Second
)

// ErrNothingCleaned says that no node could be cleaned, and what to do.
var ErrNothingCleaned = errors.New("neither DaemonSet " + AgentSet + " nor " + TunnelSet + " is there, so NO NODE WAS CLEANED: " +
	"install Raven once more and take it away then, or run 'raven-agent --cleanup' on each node")

// Options of Run.
type Options struct {
	// Timeout bounds the whole; 0 means 10 minutes.
	Timeout time.Duration
	// Log says what happens; nil means slog's default.
	Log *slog.Logger
}

type uninstaller struct {
	client kubernetes.Interface
	sets   appsclient.DaemonSetInterface
	log    *slog.Logger
}

// Run ends the agents and the processes that hold tunnels, and has every node that is ready run `raven-agent --cleanup`,
// by a DaemonSet made of the agents' own: their image is on the nodes already. Where it is interrupted, a second run goes
// on. A node that is not ready is named and left alone. The error names the nodes whose cleanup failed, and why.
func Run(ctx context.Context, client kubernetes.Interface, o Options) error {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Minute
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	u := &uninstaller{client: client, sets: client.AppsV1().DaemonSets(Namespace), log: o.Log}
	if err := u.prepare(ctx); err != nil {
		return err
	}
	for _, name := range []string{AgentSet, TunnelSet} {
		if err := u.end(ctx, name); err != nil {
			return err
		}
	}
	if err := u.release(ctx); err != nil {
		return err
	}
	if err := u.awaitCleaned(ctx); err != nil {
		return err
	}
	return u.delete(ctx, CleanupSet)
}

// prepare makes the cleanup's DaemonSet, which waits: the agents' one is its model, and is gone afterwards.
func (u *uninstaller) prepare(ctx context.Context) error {
	_, err := u.sets.Get(ctx, CleanupSet, metav1.GetOptions{})
	if err == nil {
		u.log.Info("going on with a cleanup that was begun before")
		return nil
	}
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("look for DaemonSet %s: %w", CleanupSet, err)
	}
	agents, err := u.agents(ctx)
	if err != nil {
		return err
	}
	set, err := cleanupSet(agents)
	if err != nil {
		return err
	}
	if _, err := u.sets.Create(ctx, set, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create DaemonSet %s: %w", CleanupSet, err)
	}
	return nil
}

// agents is the agents' DaemonSet. Where somebody has deleted it, which leaves the nodes as they were, it is the one that
// an installation makes, with the image of the tunnel processes, which is the agents' too.
func (u *uninstaller) agents(ctx context.Context) (*appsv1.DaemonSet, error) {
	agents, err := u.sets.Get(ctx, AgentSet, metav1.GetOptions{})
	if err == nil {
		return agents, nil
	}
	if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read DaemonSet %s: %w", AgentSet, err)
	}
	tunnels, err := u.sets.Get(ctx, TunnelSet, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, ErrNothingCleaned
	}
	if err != nil {
		return nil, fmt.Errorf("read DaemonSet %s: %w", TunnelSet, err)
	}
	u.log.Warn("somebody has deleted " + AgentSet + ": nodes are cleaned with the image of " + TunnelSet + " and the usual folders")
	agents = &appsv1.DaemonSet{}
	if err := yaml.UnmarshalStrict(workloads.Agent, agents); err != nil {
		return nil, fmt.Errorf("read the manifest of DaemonSet %s: %w", AgentSet, err)
	}
	from, to := &tunnels.Spec.Template.Spec, &agents.Spec.Template.Spec
	if len(from.Containers) == 0 || len(to.Containers) == 0 {
		return nil, fmt.Errorf("DaemonSet %s has no container", TunnelSet)
	}
	to.Containers[0].Image, to.Containers[0].ImagePullPolicy = from.Containers[0].Image, from.Containers[0].ImagePullPolicy
	to.ImagePullSecrets = from.ImagePullSecrets
	return agents, nil
}

// cleanupSet is a DaemonSet whose pods clean once and are then ready.
func cleanupSet(agents *appsv1.DaemonSet) (*appsv1.DaemonSet, error) {
	labels := map[string]string{"app.kubernetes.io/name": "raven-agent", "app.kubernetes.io/part-of": "raven", componentLabel: cleanupComponent}
	spec := *agents.Spec.Template.Spec.DeepCopy()
	i := slices.IndexFunc(spec.Containers, func(c corev1.Container) bool { return c.Name == "raven-agent" })
	if i < 0 {
		return nil, fmt.Errorf("DaemonSet %s has no container raven-agent", AgentSet)
	}
	clean := spec.Containers[i]
	clean.Name, clean.Ports = "cleanup", nil
	clean.StartupProbe, clean.LivenessProbe, clean.ReadinessProbe = nil, nil, nil
	clean.Args = append(slices.Clone(clean.Args), "--cleanup")
	clean.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	done := corev1.Container{
		Name: "done", Image: clean.Image, ImagePullPolicy: clean.ImagePullPolicy, Command: clean.Command, Args: []string{"idle"},
		SecurityContext: &corev1.SecurityContext{
			RunAsUser: ptr.To[int64](65532), AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true),
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
	}
	spec.InitContainers, spec.Containers = []corev1.Container{clean}, []corev1.Container{done}
	spec.AutomountServiceAccountToken = ptr.To(false)
	selector := map[string]string{pendingLabel: "true"}
	for k, v := range spec.NodeSelector {
		selector[k] = v
	}
	spec.NodeSelector = selector
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: CleanupSet, Namespace: Namespace, Labels: labels},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			// All at once: nobody's traffic is at stake any more.
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType},
			Template:       corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec},
		},
	}, nil
}

// end deletes a DaemonSet and waits until its pods have ended on every node that is ready.
func (u *uninstaller) end(ctx context.Context, name string) error {
	set, err := u.sets.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read DaemonSet %s: %w", name, err)
	}
	selector := metav1.FormatLabelSelector(set.Spec.Selector)
	u.log.Info("ending " + name)
	if err := u.delete(ctx, name); err != nil {
		return err
	}
	return await(ctx, func(ctx context.Context) error {
		nodes, _, err := u.nodes(ctx)
		if err != nil {
			return err
		}
		pods, err := u.client.CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return fmt.Errorf("list the pods of %s: %w", name, err)
		}
		var left []string
		for _, p := range pods.Items {
			if slices.Contains(nodes, p.Spec.NodeName) {
				left = append(left, p.Spec.NodeName)
			}
		}
		return named("pods of "+name+" have not ended on", left)
	})
}

func (u *uninstaller) delete(ctx context.Context, name string) error {
	err := u.sets.Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete DaemonSet %s: %w", name, err)
	}
	return nil
}

// release lets the cleanup's DaemonSet run, now that no agent does.
func (u *uninstaller) release(ctx context.Context) error {
	return await(ctx, func(ctx context.Context) error {
		set, err := u.sets.Get(ctx, CleanupSet, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("read DaemonSet %s: %w", CleanupSet, err)
		}
		delete(set.Spec.Template.Spec.NodeSelector, pendingLabel)
		if _, err := u.sets.Update(ctx, set, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("let DaemonSet %s run: %w", CleanupSet, err)
		}
		u.log.Info("cleaning every node")
		return nil
	})
}

// awaitCleaned waits until the cleanup has ended well on every node that is ready.
func (u *uninstaller) awaitCleaned(ctx context.Context) error {
	var cleaned int
	var unready []string
	err := await(ctx, func(ctx context.Context) (err error) {
		var nodes []string
		if nodes, unready, err = u.nodes(ctx); err != nil {
			return err
		}
		pods, err := u.client.CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{LabelSelector: componentLabel + "=" + cleanupComponent})
		if err != nil {
			return fmt.Errorf("list the pods of %s: %w", CleanupSet, err)
		}
		missing := map[string]string{}
		for _, n := range nodes {
			missing[n] = n + " (no pod there yet)"
		}
		for _, p := range pods.Items {
			if ready(p.Status) {
				delete(missing, p.Spec.NodeName)
			} else if missing[p.Spec.NodeName] != "" {
				missing[p.Spec.NodeName] = p.Spec.NodeName + " (" + words(p.Status) + ")"
			}
		}
		cleaned = len(nodes) - len(missing)
		var left []string
		for _, text := range missing {
			left = append(left, text)
		}
		return named("the cleanup has not ended on", left)
	})
	if len(unready) > 0 {
		u.log.Warn("these nodes are not ready and keep what Raven made: run 'raven-agent --cleanup' there", "nodes", strings.Join(unready, " "))
	}
	u.log.Info("cleaned", "nodes", cleaned)
	return err
}

// nodes are the names of the Linux nodes that are ready, and of those that are not, sorted.
func (u *uninstaller) nodes(ctx context.Context) (ready, unready []string, err error) {
	list, err := u.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: corev1.LabelOSStable + "!=windows"})
	if err != nil {
		return nil, nil, fmt.Errorf("list the nodes: %w", err)
	}
	for _, n := range list.Items {
		up := slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
		if up {
			ready = append(ready, n.Name)
		} else {
			unready = append(unready, n.Name)
		}
	}
	slices.Sort(ready)
	slices.Sort(unready)
	return ready, unready, nil
}

func ready(s corev1.PodStatus) bool {
	return slices.ContainsFunc(s.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// words are what a pod says about a cleanup that has not ended: the last lines of its log, or what it waits for.
func words(s corev1.PodStatus) string {
	for _, c := range s.InitContainerStatuses {
		for _, state := range []corev1.ContainerState{c.State, c.LastTerminationState} {
			if t := state.Terminated; t != nil && t.ExitCode != 0 {
				return fmt.Sprintf("exit status %d: %s", t.ExitCode, strings.TrimSpace(t.Message))
			}
			if w := state.Waiting; w != nil && w.Message != "" {
				return w.Reason + ": " + w.Message
			}
		}
	}
	return string(s.Phase)
}

// named is an error that says which; nil where there is none.
func named(what string, which []string) error {
	if len(which) == 0 {
		return nil
	}
	slices.Sort(which)
	return fmt.Errorf("%s %s", what, strings.Join(which, ", "))
}

// await asks until the answer is good, and returns the last one where ctx ends before. Errors of the API server are
// asked through, since it may restart.
func await(ctx context.Context, ask func(context.Context) error) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	var last error
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if last == nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), last)
		}
	}
}
