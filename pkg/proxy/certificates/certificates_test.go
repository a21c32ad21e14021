package certificates

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/ravencni/raven/pkg/proxy/identity"
)

// asked is the object that an API server makes of a request.
func asked(t *testing.T, user, boundTo string, usages []certificatesv1.KeyUsage, csr *x509.CertificateRequest) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, csr, key)
	if err != nil {
		t.Fatal(err)
	}
	r := &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{
		SignerName: SignerName, Username: user, Usages: usages,
		Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
	}}
	if boundTo != "" {
		r.Spec.Extra = map[string]certificatesv1.ExtraValue{nodeClaim: {boundTo}}
	}
	return r
}

var (
	both   = []certificatesv1.KeyUsage{certificatesv1.UsageServerAuth, certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}
	client = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}
)

func proxyOf(node string, names ...string) *x509.CertificateRequest {
	return &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: identity.CommonName(node), Organization: []string{identity.Organization}},
		DNSNames: append([]string{node}, names...),
	}
}

func TestOnlyWhatTheIdentityAllowsIsSigned(t *testing.T) {
	namesOf := func(node string) Names {
		return Names{DNS: []string{"proxy.example"}, IPs: []net.IP{net.ParseIP("192.0.2.1")}}
	}
	withIP := proxyOf("edge-1")
	withIP.IPAddresses = []net.IP{net.ParseIP("192.0.2.1")}
	otherIP := proxyOf("edge-1")
	otherIP.IPAddresses = []net.IP{net.ParseIP("192.0.2.2")}
	otherOrg := proxyOf("edge-1")
	otherOrg.Subject.Organization = []string{"system:masters"}
	mail := proxyOf("edge-1")
	mail.EmailAddresses = []string{"a@example"}
	apiserver := &x509.CertificateRequest{Subject: pkix.Name{CommonName: identity.ClientCommonName("apiserver")}}
	named := &x509.CertificateRequest{Subject: pkix.Name{CommonName: identity.ClientCommonName("apiserver")}, DNSNames: []string{"cloud-1"}}

	for name, c := range map[string]struct {
		r             *certificatesv1.CertificateSigningRequest
		sign, approve bool
	}{
		"its own node":              {asked(t, AgentUser, "edge-1", both, proxyOf("edge-1")), true, true},
		"with names it has":         {asked(t, AgentUser, "edge-1", both, proxyOf("edge-1", "proxy.example")), true, true},
		"with an address it has":    {asked(t, AgentUser, "edge-1", both, withIP), true, true},
		"another node":              {asked(t, AgentUser, "edge-1", both, proxyOf("edge-2")), false, false},
		"a token without a node":    {asked(t, AgentUser, "", both, proxyOf("edge-1")), false, false},
		"another user":              {asked(t, "system:node:edge-1", "edge-1", both, proxyOf("edge-1")), false, false},
		"another node's name":       {asked(t, AgentUser, "edge-1", both, proxyOf("edge-1", "cloud-1")), false, false},
		"an address it has not":     {asked(t, AgentUser, "edge-1", both, otherIP), false, false},
		"another organization":      {asked(t, AgentUser, "edge-1", both, otherOrg), false, false},
		"a mail address":            {asked(t, AgentUser, "edge-1", both, mail), false, false},
		"more usages":               {asked(t, AgentUser, "edge-1", append(both[:3:3], certificatesv1.UsageCertSign), proxyOf("edge-1")), false, false},
		"an agent as a client":      {asked(t, AgentUser, "edge-1", client, apiserver), false, false},
		"an API server":             {asked(t, "admin", "", client, apiserver), true, false},
		"an API server as a server": {asked(t, "admin", "", both, apiserver), false, false},
		"an API server with a name": {asked(t, "admin", "", client, named), false, false},
		"some other name":           {asked(t, AgentUser, "edge-1", both, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:admin"}}), false, false},
	} {
		v := Judge(c.r, namesOf)
		if v.Sign != c.sign || v.Approve != c.approve || (v.Denied == "") != c.sign {
			t.Errorf("%s: %+v", name, v)
		}
	}
	for seconds, want := range map[int32]time.Duration{3600: time.Hour, math.MaxInt32: ClientLifetime} {
		r := asked(t, "admin", "", client, apiserver)
		r.Spec.ExpirationSeconds = &seconds
		if v := Judge(r, namesOf); v.Grant.Lifetime != want {
			t.Errorf("a client that asks for %d s gets %v, want %v", seconds, v.Grant.Lifetime, want)
		}
		r = asked(t, AgentUser, "edge-1", both, proxyOf("edge-1"))
		r.Spec.ExpirationSeconds = &seconds
		if v := Judge(r, namesOf); v.Grant.Lifetime != 0 {
			t.Errorf("an agent that asks for %d s gets %v", seconds, v.Grant.Lifetime)
		}
	}
	r := asked(t, AgentUser, "edge-1", both, proxyOf("edge-1"))
	r.Spec.Request = bytes.Replace(r.Spec.Request, []byte("\n"), []byte("\nAAAA"), 1)
	if v := Judge(r, namesOf); v.Sign || v.Denied == "" {
		t.Errorf("a broken request: %+v", v)
	}
}

// Through a rollover every certificate that is in use is trusted by everybody who has read the bundle an hour ago.
func TestARolloverBreaksNobody(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	var a Authorities
	if changed, err := a.Advance(now); err != nil || !changed {
		t.Fatalf("%t, %v", changed, err)
	}
	first := a.Current.Certificate
	stale, reads := a.Bundle(), now // what the slowest agent has
	rolled := false
	for !rolled { // in steps of half an hour around the change, six hours elsewhere
		step := 6 * time.Hour
		if a.Next != nil {
			step = 30 * time.Minute
		}
		now = now.Add(step)
		if a.Current == nil || len(a.Old) == 0 && a.Next == nil && now.Sub(first.NotBefore) < AuthorityLifetime*2/3-7*24*time.Hour {
			now = first.NotBefore.Add(AuthorityLifetime * 2 / 3).Add(-7 * 24 * time.Hour)
		}
		if now.After(first.NotAfter) {
			t.Fatal("nothing was rolled over")
		}
		if _, err := a.Advance(now); err != nil {
			t.Fatal(err)
		}
		data, err := a.Data()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseAuthorities(data)
		if err != nil || !bytes.Equal(again.Bundle(), a.Bundle()) {
			t.Fatalf("%v: what was written reads differently: %v", now, err)
		}
		roots, err := parseBundle(stale)
		if err != nil {
			t.Fatal(err)
		}
		trusted := false
		for _, r := range roots {
			trusted = trusted || r.Equal(a.Current.Certificate)
		}
		if !trusted {
			t.Fatalf("%v: an authority signs that nobody knew %v ago", now, now.Sub(reads))
		}
		if now.Sub(reads) >= propagation {
			stale, reads = a.Bundle(), now
		}
		rolled = rolled || !a.Current.Certificate.Equal(first)
	}
}

// memory signs in memory what Judge allows.
type memory struct {
	t       *testing.T
	all     *Authorities
	now     time.Time
	signed  int
	refuses error
}

func (m *memory) Sign(_ context.Context, request []byte) ([]byte, error) {
	if m.refuses != nil {
		return nil, m.refuses
	}
	v := Judge(&certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{
		Username: AgentUser, Usages: both, Request: request,
		Extra: map[string]certificatesv1.ExtraValue{nodeClaim: {"edge-1"}},
	}}, func(string) Names { return Names{} })
	if !v.Sign || !v.Approve {
		m.t.Errorf("refused: %s", v.Denied)
	}
	m.signed++
	return m.all.Current.Issue(v.Key, v.Grant, m.now)
}

func (m *memory) Bundle(context.Context) ([]byte, error) { return m.all.Bundle(), nil }

func TestAKeeperRenewsInTimeAndSurvivesARestartWithoutTheSigner(t *testing.T) {
	begin := time.Now()
	early := begin.Add(-Lifetime*2/3 - time.Hour)
	m := &memory{t: t, all: &Authorities{}, now: early}
	if _, err := m.all.Advance(m.now); err != nil {
		t.Fatal(err)
	}
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	names := func() Names { return Names{} }
	changes := 0
	k := NewKeeper("edge-1", dir, names, m, func() { changes++ }, log)
	if _, err := k.Material(); err == nil {
		t.Fatal("there is a certificate before one was signed")
	}
	step := func(when string, at time.Time, signed, changed int) {
		t.Helper()
		m.now = at
		if err := k.step(t.Context(), at); err != nil || m.signed != signed || changes != changed {
			t.Fatalf("%s: %v, %d signed, %d changes; want %d, %d", when, err, m.signed, changes, signed, changed)
		}
	}
	step("at first", early, 1, 1)
	step("soon after", early.Add(time.Minute), 1, 1)
	step("with a third left", begin, 2, 2)
	next, err := NewAuthority(begin, AuthorityLifetime)
	if err != nil {
		t.Fatal(err)
	}
	m.all.Next = next
	step("a new authority becomes known", begin, 2, 3)
	m.all.Old, m.all.Current, m.all.Next = []*x509.Certificate{m.all.Current.Certificate}, next, nil
	step("it signs", begin, 3, 4)
	if err := k.leaf.CheckSignatureFrom(next.Certificate); err != nil {
		t.Error(err)
	}

	m.refuses = errors.New("the API server is away")
	again := NewKeeper("edge-1", dir, names, m, func() {}, log)
	if got, err := again.Material(); err != nil || !got.Certificate.Leaf.Equal(k.leaf) {
		t.Errorf("after a restart: %v", err)
	}
	other := NewKeeper("edge-2", dir, names, m, func() {}, log)
	if _, err := other.Material(); err == nil {
		t.Error("a node uses the certificate of another one")
	}
	if err := other.step(t.Context(), begin); err == nil || !strings.Contains(err.Error(), "away") {
		t.Errorf("got %v", err)
	}
}
