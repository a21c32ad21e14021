package cluster

import (
	"context"
	"fmt"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Admin is the configuration of a user who may do everything, without a limit of the client's own rate.
func (c *Cluster) Admin() *rest.Config { return rest.CopyConfig(c.admin) }

// AdminKubeconfig is the path of the admin's kubeconfig file.
func (c *Cluster) AdminKubeconfig() string { return c.file("admin.kubeconfig") }

// User is the configuration of a user with a client certificate, of the given groups.
func (c *Cluster) User(name string, groups ...string) (*rest.Config, error) {
	p, err := c.ca.issue(name, groups)
	if err != nil {
		return nil, err
	}
	return &rest.Config{Host: c.url("https", portAPI), Dial: c.dial(), TLSClientConfig: rest.TLSClientConfig{
		CAData: c.ca.pem, CertData: p.certificate, KeyData: p.key,
	}}, nil
}

// PodUser is the configuration that a Pod of the ServiceAccount on the node gets: a token that is bound to a Pod which
// this makes, and that names Pod and node in its claims. With an empty node the Pod is not scheduled, and the token
// names none.
func (c *Cluster) PodUser(ctx context.Context, namespace, account, node string) (*rest.Config, error) {
	client, err := kubernetes.NewForConfig(c.admin)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	pod, err := client.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: account + "-"},
		Spec: corev1.PodSpec{
			ServiceAccountName: account, NodeName: node,
			Containers: []corev1.Container{{Name: "none", Image: "none"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create a Pod of ServiceAccount %s/%s: %w", namespace, account, err)
	}
	token, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID,
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create a token of ServiceAccount %s/%s: %w", namespace, account, err)
	}
	return &rest.Config{
		Host: c.admin.Host, Dial: c.dial(), BearerToken: token.Status.Token,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.ca.pem},
	}, nil
}

// Kubeconfig writes a configuration in the form that kubectl and --kubeconfig read.
func Kubeconfig(config *rest.Config) ([]byte, error) {
	const name = "raven"
	k := clientcmdapi.NewConfig()
	k.Clusters[name] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData,
		TLSServerName: config.ServerName}
	k.AuthInfos[name] = &clientcmdapi.AuthInfo{
		ClientCertificateData: config.CertData, ClientKeyData: config.KeyData, Token: config.BearerToken,
	}
	k.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	k.CurrentContext = name
	content, err := clientcmd.Write(*k)
	if err != nil {
		return nil, fmt.Errorf("encode the kubeconfig of %s: %w", strings.TrimSpace(config.Host), err)
	}
	return content, nil
}
