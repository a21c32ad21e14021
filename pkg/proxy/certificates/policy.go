package certificates

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/ravencni/raven/pkg/proxy/identity"
)

// SignerName is the proxy's in certificates.k8s.io.
const SignerName = "raven.openyurt.io/proxy"

// AgentUser is the agents' ServiceAccount as the API server names it, and nodeClaim the extra of a bound token that
// names the node that its pod runs on; the API server sets both, and no client can.
const (
	AgentUser = "system:serviceaccount:kube-system:raven-agent-account"
	nodeClaim = "authentication.kubernetes.io/node-name"
)

// Names are what a node's certificate may say besides the node's own name, which is always allowed.
type Names struct {
	DNS []string
	IPs []net.IP
}

// are says whether a certificate has exactly these names and the node's.
func (n Names) are(node string, c *x509.Certificate) bool {
	want := slices.Sorted(slices.Values(append([]string{node}, n.DNS...)))
	have := slices.Sorted(slices.Values(c.DNSNames))
	if !slices.Equal(want, have) || len(n.IPs) != len(c.IPAddresses) {
		return false
	}
	for _, ip := range n.IPs {
		if !slices.ContainsFunc(c.IPAddresses, ip.Equal) {
			return false
		}
	}
	return true
}

// Verdict on a request.
type Verdict struct {
	// Sign: the request may be signed as Grant says. Without Approve it waits for a person's approval.
	Sign, Approve bool
	Grant         Grant
	Key           any
	// Denied says why the request is refused for good; empty: it is not.
	Denied string
}

// Judge says what may be signed for a request. A node's proxy gets a certificate for its own node alone, without asking
// anybody; a client of the CONNECT front end gets one once whoever may approve requests has done so. namesOf says what
// more a node may be called.
func Judge(r *certificatesv1.CertificateSigningRequest, namesOf func(node string) Names) Verdict {
	deny := func(format string, args ...any) Verdict { return Verdict{Denied: fmt.Sprintf(format, args...)} }
	csr, err := parseRequest(r.Spec.Request)
	if err != nil {
		return deny("%v", err)
	}
	switch key := csr.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
			return deny("the key is ECDSA on %s: use P-256 or P-384", key.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return deny("the key is %T: use ECDSA or Ed25519", key)
	}
	if len(csr.EmailAddresses) > 0 || len(csr.URIs) > 0 {
		return deny("a certificate of this signer has neither mail addresses nor URIs")
	}
	v := Verdict{Sign: true, Key: csr.PublicKey, Grant: Grant{CommonName: csr.Subject.CommonName, DNSNames: csr.DNSNames, IPs: csr.IPAddresses}}
	if name, ok := strings.CutPrefix(csr.Subject.CommonName, identity.ClientCommonName("")); ok && name != "" {
		return judgeClient(r, v, deny)
	}
	node, ok := strings.CutPrefix(csr.Subject.CommonName, identity.CommonName(""))
	if !ok || node == "" {
		return deny("the common name %q is neither %s nor %s", csr.Subject.CommonName, identity.CommonName("<node>"), identity.ClientCommonName("<name>"))
	}
	if r.Spec.Username != AgentUser {
		return deny("%s asks for the certificate of a node's proxy, which only %s may", r.Spec.Username, AgentUser)
	}
	claims := r.Spec.Extra[nodeClaim]
	if len(claims) != 1 || claims[0] != node {
		return deny("the caller's token is bound to node %q and asks for the certificate of node %s", strings.Join(claims, ","), node)
	}
	if !slices.Equal(csr.Subject.Organization, []string{identity.Organization}) {
		return deny("the organization is %q and not %s", csr.Subject.Organization, identity.Organization)
	}
	if !uses(r, certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth, certificatesv1.UsageClientAuth) {
		return deny("the usages must be digital signature, server auth and client auth")
	}
	allowed := namesOf(node)
	for _, name := range csr.DNSNames {
		if name != node && !slices.Contains(allowed.DNS, name) {
			return deny("node %s is not called %s", node, name)
		}
	}
	for _, ip := range csr.IPAddresses {
		if !slices.ContainsFunc(allowed.IPs, ip.Equal) {
			return deny("node %s does not have address %s", node, ip)
		}
	}
	v.Approve, v.Grant.Organizations, v.Grant.Server, v.Grant.Client = true, csr.Subject.Organization, true, true
	return v
}

// judgeClient looks at the request of a client of the CONNECT front end.
func judgeClient(r *certificatesv1.CertificateSigningRequest, v Verdict, deny func(string, ...any) Verdict) Verdict {
	if r.Spec.Username == AgentUser {
		return deny("an agent asks for the certificate of a client, which could reach every region")
	}
	if len(v.Grant.DNSNames) > 0 || len(v.Grant.IPs) > 0 {
		return deny("a client's certificate has no DNS names and no addresses")
	}
	if !uses(r, certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth) {
		return deny("the usages must be digital signature and client auth")
	}
	v.Grant.Client = true
	if s := r.Spec.ExpirationSeconds; s != nil {
		v.Grant.Lifetime = min(time.Duration(*s)*time.Second, ClientLifetime)
	}
	return v
}

// uses says whether a request asks for exactly these usages.
func uses(r *certificatesv1.CertificateSigningRequest, want ...certificatesv1.KeyUsage) bool {
	have := slices.Compact(slices.Sorted(slices.Values(r.Spec.Usages)))
	slices.Sort(want)
	return slices.Equal(have, want)
}

func parseRequest(text []byte) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, fmt.Errorf("the request is not one CERTIFICATE REQUEST in PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the request cannot be read: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the request is not signed by its own key: %w", err)
	}
	return csr, nil
}
