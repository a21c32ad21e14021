package ipsec

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	testns "github.com/ravencni/raven/test/netns"
)

// authority signs certificates of a test.
type authority struct {
	t    *testing.T
	own  *x509.Certificate
	key  *ecdsa.PrivateKey
	text []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.own = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of a test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-30 * 24 * time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.text, a.key = a.sign(a.own, a.own, nil)
	var err error
	block, _ := pem.Decode(a.text)
	if a.own, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) sign(c, by *x509.Certificate, key *ecdsa.PrivateKey) (text []byte, own *ecdsa.PrivateKey) {
	a.t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if key == nil {
		key = own
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, &own.PublicKey, key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), own
}

// issue makes a node's certificate that is valid for two days around now, later by shift.
func (a *authority) issue(node string, shift time.Duration) *Certificates {
	a.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	chain, key := a.sign(&x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: node}, DNSNames: []string{node},
		NotBefore: time.Now().Add(shift - 24*time.Hour), NotAfter: time.Now().Add(shift + 24*time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}, a.own, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return &Certificates{Authorities: a.text, Chain: chain, Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}
}

func TestANodesOwnCertificateIsJudgedBeforePeersDo(t *testing.T) {
	a := newAuthority(t)
	good := a.issue("west", 0)
	for name, c := range map[string]struct {
		certificates *Certificates
		valid        bool
		says         string
	}{
		"good":              {good, true, ""},
		"another's":         {a.issue("north", 0), false, "make one with the DNS name west"},
		"expired":           {a.issue("west", -48*time.Hour), true, "expired at"},
		"not yet valid":     {a.issue("west", 48*time.Hour), true, "correct the clock"},
		"another key":       {&Certificates{good.Authorities, good.Chain, a.issue("west", 0).Key}, false, "private key does not match"},
		"no authority":      {&Certificates{nil, good.Chain, good.Key}, false, "authorities"},
		"nothing but words": {&Certificates{good.Authorities, []byte("hello"), good.Key}, false, "this node's certificate"},
	} {
		valid, err := c.certificates.check("west", time.Now())
		if valid != c.valid || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: valid %v, %v; want %v and %q", name, valid, err, c.valid, c.says)
		}
	}
	same := *good
	if good.digest() == a.issue("west", 0).digest() || good.digest() != same.digest() {
		t.Error("the digest does not tell certificates apart")
	}
	if keyIn(bytes.Join([][]byte{good.Chain, good.Key}, nil)) == "" {
		t.Error("a key behind a certificate is not found")
	}
}

// TestACertificateThatDoesNotHoldIsToldAndOtherPeersGoOn gives west certificates that a peer must refuse, while north,
// another peer, has a good one.
func TestACertificateThatDoesNotHoldIsToldAndOtherPeersGoOn(t *testing.T) {
	needsCharon(t)
	testns.Run(t, func(t *testing.T) {
		east, west, wantEast, wantWest := pair(t)
		north := newGateway(t, "north", "10.3.0.1/32")
		testns.Veth(t, testns.End{In: east.ns, Name: "wire2", Addresses: []string{"192.0.2.1/24"}},
			testns.End{In: north.ns, Name: "wire", Addresses: []string{"192.0.2.2/24"}})
		a := newAuthority(t)
		wantNorth := Desired{
			Port: 4500, Certificates: a.issue("north", 0), Addresses: addresses("10.3.0.1"),
			Peers: []DesiredPeer{{Node: "east", Endpoint: endpoint("192.0.2.1:4500"), Prefixes: prefixes("10.1.0.0/16")}},
		}
		wantEast.Peers = append(wantEast.Peers, DesiredPeer{Node: "north", Endpoint: endpoint("192.0.2.2:4500"), Dial: true, Prefixes: prefixes("10.3.0.0/16")})
		wantEast.PSK, wantEast.Certificates = "", a.issue("east", 0)
		wantWest.PSK, wantWest.Certificates = "", a.issue("west", 0)
		for _, g := range []*gateway{east, west, north} {
			g.start()
		}
		north.put(wantNorth)
		west.put(wantWest)
		east.put(wantEast)
		t.Logf("up after %v", east.awaitUp("west"))
		east.awaitPing("-I", "10.1.0.1", "10.3.0.1")
		losses := east.pinging("-I", "10.1.0.1", "10.3.0.1")

		for _, bad := range []struct {
			name         string
			certificates *Certificates
			says         string
		}{
			{"another's certificate", a.issue("south", 0), "no trusted certificate proves that the peer is"},
			{"a certificate of another authority", newAuthority(t).issue("west", 0), "no trusted certificate proves that the peer is"},
			{"a clock that is a day ahead, or a certificate that has expired", a.issue("west", -48*time.Hour), "not valid now"},
			{"a clock that is a day behind", a.issue("west", 48*time.Hour), "not valid now"},
		} {
			west.stop()
			west.start() // with nothing of the certificate before
			bad.certificates.Authorities = a.text
			wantWest.Certificates = bad.certificates
			west.put(wantWest)
			t.Log(bad.name)
			east.awaitCause("west", bad.says)
		}
		wantWest.Certificates = a.issue("west", 0)
		west.put(wantWest)
		east.awaitUp("west")
		if lost, of := losses(); lost > 0 {
			t.Errorf("the peer with a good certificate lost packets: %d of %d", lost, of)
		}
	})
}
