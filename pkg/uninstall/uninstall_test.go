package uninstall

import (
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func daemonSet(name, container, image string) *appsv1.DaemonSet {
	set := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: Namespace}}
	set.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{componentLabel: name}}
	set.Spec.Template.Spec.Containers = []corev1.Container{{Name: container, Image: image, Args: []string{"--given"}}}
	set.Spec.Template.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "secret-of-" + name}}
	return set
}

// cleanupOf is the DaemonSet that Run makes in a cluster without nodes; nil: it makes none.
func cleanupOf(t *testing.T, objects ...runtime.Object) (*appsv1.DaemonSet, error) {
	t.Helper()
	client := fake.NewClientset(objects...)
	err := Run(t.Context(), client, Options{Timeout: 30 * time.Second, Log: slog.New(slog.DiscardHandler)})
	for _, a := range client.Actions() {
		if create, ok := a.(clienttesting.CreateAction); ok && a.GetVerb() == "create" {
			return create.GetObject().(*appsv1.DaemonSet), err
		}
	}
	return nil, err
}

func TestTheCleanupIsMadeOfTheAgentsOrWithoutThemOfTheManifest(t *testing.T) {
	agents := daemonSet(AgentSet, "raven-agent", "registry/of/agents:v1")
	tunnels := daemonSet(TunnelSet, "raven-tunnel", "registry/of/tunnels:v2")
	for _, c := range []struct {
		name, image, secret, argument string
		objects                       []runtime.Object
	}{
		{"both there", "registry/of/agents:v1", "secret-of-" + AgentSet, "--given", []runtime.Object{agents, tunnels}},
		{"agents deleted", "registry/of/tunnels:v2", "secret-of-" + TunnelSet, "--cni-bin-dir=/opt/cni/bin", []runtime.Object{tunnels}},
	} {
		t.Run(c.name, func(t *testing.T) {
			set, err := cleanupOf(t, c.objects...)
			if err != nil || set == nil {
				t.Fatalf("it makes %v: %v", set, err)
			}
			spec := set.Spec.Template.Spec
			clean := spec.InitContainers[0]
			if clean.Image != c.image || spec.Containers[0].Image != c.image {
				t.Errorf("images %q and %q, want %q", clean.Image, spec.Containers[0].Image, c.image)
			}
			if !slices.Contains(clean.Args, c.argument) || !slices.Contains(clean.Args, "--cleanup") {
				t.Errorf("arguments %q", clean.Args)
			}
			if len(spec.ImagePullSecrets) != 1 || spec.ImagePullSecrets[0].Name != c.secret {
				t.Errorf("secrets %v", spec.ImagePullSecrets)
			}
		})
	}
}

func TestWithoutAnyDaemonSetItSaysThatNothingWasCleaned(t *testing.T) {
	if set, err := cleanupOf(t); !errors.Is(err, ErrNothingCleaned) || set != nil {
		t.Errorf("it makes %v and says %v", set, err)
	}
}
