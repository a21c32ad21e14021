package controller

import (
	"context"
	"crypto/rand"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The Secret in Namespace whose key holds what IPsec gateways prove themselves by, as docs/contract.md names it.
const (
	secretName = "raven-agent-secret"
	secretKey  = "vpn-connection-psk"
)

// preshared makes the Secret where there is none. It only ever creates: it has no right to read or change one, so a key
// that the user put there stays, and a controller that is taken over learns none.
type preshared struct {
	client client.Client
	// every is how often it is made sure that there is one.
	every time.Duration
	log   *slog.Logger
}

// run works until ctx is done.
func (p *preshared) run(ctx context.Context) error {
	ticker := time.NewTicker(p.every)
	defer ticker.Stop()
	for {
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: secretName},
			StringData: map[string]string{secretKey: rand.Text() + rand.Text()}, // 256 bits; Text holds 128 at least
		}
		switch err := p.client.Create(ctx, secret); {
		case err == nil:
			p.log.Info("made a pre-shared key for IPsec tunnels", "secret", Namespace+"/"+secretName)
		case !apierrors.IsAlreadyExists(err) && ctx.Err() == nil:
			p.log.Warn("cannot make sure that there is a pre-shared key for IPsec tunnels", "secret", Namespace+"/"+secretName, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
