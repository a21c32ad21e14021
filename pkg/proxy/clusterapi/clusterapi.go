// Package clusterapi is what the proxy of a node wants of the API server: a signed certificate, the authorities to trust,
// and the listeners of the internal Service.
package clusterapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/ravencni/raven/pkg/controller/services"
	"github.com/ravencni/raven/pkg/proxy/certificates"
)

const (
	namespace = "kube-system"
	requests  = "certificatesigningrequests"
	// look is how often a request is read until it is signed.
	look = 500 * time.Millisecond
)

// Client speaks for one node.
type Client struct {
	Core, Certificates rest.Interface
	Node               string
}

// Bundle implements certificates.Signer.
func (c *Client) Bundle(ctx context.Context) ([]byte, error) {
	var m corev1.ConfigMap
	err := c.Core.Get().Namespace(namespace).Resource("configmaps").Name(certificates.ObjectName).Do(ctx).Into(&m)
	if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s/%s: %w", namespace, certificates.ObjectName, err)
	}
	return []byte(m.Data[certificates.BundleKey]), nil
}

// Sign implements certificates.Signer.
func (c *Client) Sign(ctx context.Context, request []byte) ([]byte, error) {
	r := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "raven-proxy-" + c.Node + "-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: certificates.SignerName, Request: request,
			Usages: []certificatesv1.KeyUsage{
				certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth, certificatesv1.UsageClientAuth,
			},
		},
	}
	if err := c.Certificates.Post().Resource(requests).Body(r).Do(ctx).Into(r); err != nil {
		return nil, fmt.Errorf("create a CertificateSigningRequest: %w", err)
	}
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	var failed error // of the last look
	for {
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("CertificateSigningRequest %s is not signed yet (does raven-controller run?): %w", r.Name,
				errors.Join(ctx.Err(), failed))
		}
		failed = c.Certificates.Get().Resource(requests).Name(r.Name).Do(ctx).Into(r)
		if apierrors.IsNotFound(failed) || apierrors.IsForbidden(failed) {
			return nil, fmt.Errorf("read CertificateSigningRequest %s: %w", r.Name, failed)
		}
		if failed != nil {
			continue // the API server is away, or the client's own limiter sees the context's end coming
		}
		if len(r.Status.Certificate) > 0 {
			return r.Status.Certificate, nil
		}
		for _, s := range r.Status.Conditions {
			if s.Type == certificatesv1.CertificateDenied || s.Type == certificatesv1.CertificateFailed {
				return nil, errors.New("CertificateSigningRequest " + r.Name + " was refused: " + s.Message)
			}
		}
	}
}

// Targets reads the listeners of the HTTPS ports.
func (c *Client) Targets(ctx context.Context) (services.Targets, error) {
	var s corev1.Service
	err := c.Core.Get().Namespace(namespace).Resource("services").Name(services.InternalName).Do(ctx).Into(&s)
	if err != nil {
		return nil, fmt.Errorf("read Service %s/%s: %w", namespace, services.InternalName, err)
	}
	return services.ParseTargets(s.Annotations[services.AnnotationTargets]), nil
}

var _ certificates.Signer = (*Client)(nil)
