package certificates

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"
)

// propagation is how long everybody may take to learn of a new authority before anything is signed with it. Agents read
// the bundle every minute.
const propagation = time.Hour

// Authorities are the one that signs, its successor while everybody learns of it, and predecessors whose certificates
// are still in use.
type Authorities struct {
	Current, Next *Authority
	Old           []*x509.Certificate
}

// Advance brings the authorities to what they should be now, and says whether that changed anything.
func (a *Authorities) Advance(now time.Time) (changed bool, err error) {
	if a.Current == nil || !now.Before(a.Current.Certificate.NotAfter) {
		fresh, err := NewAuthority(now, AuthorityLifetime)
		if err != nil {
			return false, err
		}
		*a = Authorities{Current: fresh}
		return true, nil
	}
	kept := a.Old[:0:0]
	for _, c := range a.Old {
		if now.Before(c.NotAfter) {
			kept = append(kept, c)
		}
	}
	changed = len(kept) != len(a.Old)
	a.Old = kept
	switch {
	case a.Next != nil && now.Sub(a.Next.Certificate.NotBefore) >= backdate+propagation:
		a.Old = append(a.Old, a.Current.Certificate)
		a.Current, a.Next = a.Next, nil
		changed = true
	case a.Next == nil && dueFor(a.Current.Certificate, now):
		if a.Next, err = NewAuthority(now, AuthorityLifetime); err != nil {
			return changed, err
		}
		changed = true
	}
	return changed, nil
}

// dueFor says whether less than a third of a certificate's life is left.
func dueFor(c *x509.Certificate, now time.Time) bool {
	life := c.NotAfter.Sub(c.NotBefore)
	return c.NotAfter.Sub(now) < life/3
}

// ObjectName is that of the Secret with the authorities, and of the ConfigMap with what everybody must trust, under
// BundleKey; both are in kube-system.
const (
	ObjectName = "raven-proxy-ca"
	BundleKey  = "ca.crt"
)

// Keys of the Secret that holds the authorities.
const (
	keyCurrent, keyCurrentKey = "tls.crt", "tls.key"
	keyNext, keyNextKey       = "next.crt", "next.key"
	keyOld                    = "old.crt"
)

// Data writes the authorities for a Secret.
func (a *Authorities) Data() (map[string][]byte, error) {
	out := map[string][]byte{}
	var err error
	if out[keyCurrent], out[keyCurrentKey], err = a.Current.Encode(); err != nil {
		return nil, err
	}
	if a.Next != nil {
		if out[keyNext], out[keyNextKey], err = a.Next.Encode(); err != nil {
			return nil, err
		}
	}
	var old bytes.Buffer
	for _, c := range a.Old {
		old.Write(encodeCertificate(c))
	}
	if old.Len() > 0 {
		out[keyOld] = old.Bytes()
	}
	return out, nil
}

// ParseAuthorities reads what Data wrote. An empty Secret has none.
func ParseAuthorities(data map[string][]byte) (*Authorities, error) {
	a := &Authorities{}
	var err error
	if len(data[keyCurrent]) == 0 {
		return a, nil
	}
	if a.Current, err = ParseAuthority(data[keyCurrent], data[keyCurrentKey]); err != nil {
		return nil, err
	}
	if len(data[keyNext]) > 0 {
		if a.Next, err = ParseAuthority(data[keyNext], data[keyNextKey]); err != nil {
			return nil, fmt.Errorf("the next one: %w", err)
		}
	}
	if a.Old, err = parseBundle(data[keyOld]); err != nil {
		return nil, fmt.Errorf("old ones: %w", err)
	}
	return a, nil
}

// Bundle is what everybody must trust, in PEM: the authority that signs first.
func (a *Authorities) Bundle() []byte {
	var out bytes.Buffer
	out.Write(encodeCertificate(a.Current.Certificate))
	if a.Next != nil {
		out.Write(encodeCertificate(a.Next.Certificate))
	}
	for _, c := range a.Old {
		out.Write(encodeCertificate(c))
	}
	return out.Bytes()
}

func encodeCertificate(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func parseBundle(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return out, nil
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read certificate %d of a bundle: %w", len(out)+1, err)
		}
		out, text = append(out, c), rest
	}
}
