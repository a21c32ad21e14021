package controller_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ravencni/raven/pkg/election"
)

func TestAMissingPreSharedKeyIsMadeAndTheUsersStays(t *testing.T) {
	r := newRig(t)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "raven-agent-secret"}}
	if err := r.api.Delete(t.Context(), secret); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	key := func() string {
		t.Helper()
		var s corev1.Secret
		if err := r.api.Get(t.Context(), client.ObjectKeyFromObject(secret), &s); err != nil {
			return ""
		}
		return string(s.Data["vpn-connection-psk"])
	}
	made := func(not string) (got string) {
		t.Helper()
		r.await("a pre-shared key", func() string {
			if got = key(); len(got) < 40 || got == not {
				return "it has " + got
			}
			return ""
		})
		return got
	}
	stop := r.start()
	first := made("")
	stop()
	r.delete(secret)
	stop = r.start()
	made(first) // each is another
	stop()

	r.delete(secret)
	users := secret.DeepCopy()
	users.StringData = map[string]string{"vpn-connection-psk": "the user's own"}
	r.create(users)
	r.start()
	r.node("psk-a", "psk", "192.168.50.1", "10.50.1.0/24")
	r.gateway("psk", `{endpoints: [{nodeName: psk-a, underNAT: true}]}`)
	r.awaitCondition("psk", election.ConditionReady, election.ReasonReady)
	if got := key(); got != "the user's own" {
		t.Errorf("the user's key became %q", got)
	}
}
