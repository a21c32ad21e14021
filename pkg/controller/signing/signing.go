// Package signing is the controller's signer of the L7 proxy's certificates.
package signing

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/ravencni/raven/pkg/proxy/certificates"
	"github.com/ravencni/raven/pkg/proxy/directory"
	"github.com/ravencni/raven/pkg/topology"
)

// lookAtAuthorities is how often their age is compared; a successor waits an hour, so minutes are enough.
const lookAtAuthorities = 10 * time.Minute

// Signer keeps the authorities, and signs what may be signed.
type Signer struct {
	Client client.Client
	// Live reads the Secret, which no cache should hold.
	Live client.Reader
	// Namespace holds the Secret and the ConfigMap.
	Namespace string
	// State has the Gateways and Nodes.
	State func() topology.State
	Now   func() time.Time
	Log   *slog.Logger

	mu sync.Mutex // held while the authorities are read and written
}

// Reconcile implements reconcile.Reconciler.
func (s *Signer) Reconcile(ctx context.Context, r reconcile.Request) (reconcile.Result, error) {
	csr := &certificatesv1.CertificateSigningRequest{}
	if err := s.Live.Get(ctx, client.ObjectKey{Name: r.Name}, csr); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if csr.Spec.SignerName != certificates.SignerName || len(csr.Status.Certificate) > 0 ||
		has(csr, certificatesv1.CertificateDenied) || has(csr, certificatesv1.CertificateFailed) {
		return reconcile.Result{}, nil
	}
	v := certificates.Judge(csr, s.namesOf)
	if v.Denied != "" {
		s.Log.Warn("a certificate of the proxy is refused", "request", csr.Name, "user", csr.Spec.Username, "because", v.Denied)
		return reconcile.Result{}, s.condition(ctx, csr, certificatesv1.CertificateDenied, "NotAllowed", v.Denied)
	}
	if !has(csr, certificatesv1.CertificateApproved) {
		if !v.Approve {
			return reconcile.Result{}, nil // a person's turn, whose approval is an event
		}
		if err := s.condition(ctx, csr, certificatesv1.CertificateApproved, "OwnNode", "the node that the caller's token is bound to"); err != nil {
			return reconcile.Result{}, err
		}
	}
	all, err := s.authorities(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	if csr.Status.Certificate, err = all.Current.Issue(v.Key, v.Grant, s.Now()); err != nil {
		return reconcile.Result{}, fmt.Errorf("sign CertificateSigningRequest %s: %w", csr.Name, err)
	}
	if err := s.Client.Status().Update(ctx, csr); err != nil {
		return reconcile.Result{}, fmt.Errorf("write the certificate of CertificateSigningRequest %s: %w", csr.Name, err)
	}
	s.Log.Info("signed a certificate of the proxy", "request", csr.Name, "name", v.Grant.CommonName)
	return reconcile.Result{}, nil
}

// namesOf says what more than its own name a node's certificate may say.
func (s *Signer) namesOf(node string) certificates.Names {
	return directory.New(s.State(), node).NamesOf(node)
}

func has(csr *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(csr.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == kind })
}

func (s *Signer) condition(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType, reason, message string) error {
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message, LastUpdateTime: metav1.NewTime(s.Now()),
	})
	if err := s.Client.SubResource("approval").Update(ctx, csr); err != nil {
		return fmt.Errorf("write %s of CertificateSigningRequest %s: %w", kind, csr.Name, err)
	}
	return nil
}

// authorities reads them, brings them to what they should be now, and publishes what everybody must trust.
func (s *Signer) authorities(ctx context.Context) (*certificates.Authorities, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: certificates.ObjectName}}
	err := s.Live.Get(ctx, client.ObjectKeyFromObject(secret), secret)
	absent := apierrors.IsNotFound(err)
	if err != nil && !absent {
		return nil, fmt.Errorf("read Secret %s/%s: %w", s.Namespace, secret.Name, err)
	}
	all, err := certificates.ParseAuthorities(secret.Data)
	if err != nil {
		return nil, fmt.Errorf("read the authorities in Secret %s/%s (delete it to begin anew): %w", s.Namespace, secret.Name, err)
	}
	changed, err := all.Advance(s.Now())
	if err != nil {
		return nil, err
	}
	if changed {
		if secret.Data, err = all.Data(); err != nil {
			return nil, err
		}
		write := s.Client.Update
		if absent {
			write = func(ctx context.Context, o client.Object, _ ...client.UpdateOption) error {
				return s.Client.Create(ctx, o)
			}
		}
		if err := write(ctx, secret); err != nil {
			return nil, fmt.Errorf("write Secret %s/%s: %w", s.Namespace, secret.Name, err)
		}
		s.Log.Info("the proxy's authorities changed", "signs", all.Current.Certificate.Subject.CommonName)
	}
	return all, s.publish(ctx, string(all.Bundle()))
}

// publish writes what everybody must trust.
func (s *Signer) publish(ctx context.Context, bundle string) error {
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: certificates.ObjectName}}
	err := s.Live.Get(ctx, client.ObjectKeyFromObject(m), m)
	if err == nil && m.Data[certificates.BundleKey] == bundle {
		return nil
	}
	m.Data = map[string]string{certificates.BundleKey: bundle}
	if apierrors.IsNotFound(err) {
		err = s.Client.Create(ctx, m)
	} else if err == nil {
		err = s.Client.Update(ctx, m)
	}
	if err != nil {
		return fmt.Errorf("write ConfigMap %s/%s: %w", s.Namespace, m.Name, err)
	}
	return nil
}

// Keep looks after the authorities until ctx is done.
func (s *Signer) Keep(ctx context.Context) error {
	ticker := time.NewTicker(lookAtAuthorities)
	defer ticker.Stop()
	for {
		if _, err := s.authorities(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("the proxy's authorities could not be looked after; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
