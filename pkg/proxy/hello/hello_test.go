package hello

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/ravencni/raven/pkg/proxy/refusal"
)

// helloFor is what Go's own client sends.
func helloFor(t testing.TB, name string, fragment int) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(theirs, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake() // ends with the pipe
	}()
	raw, _, err := Read(ours)
	if err != nil && refusal.Of(err).Reason != refusal.NoServerName {
		t.Fatal(err)
	}
	ours.Close()
	<-done
	if fragment == 0 {
		return raw
	}
	var out []byte
	for message := raw[recordHeader:]; len(message) > 0; {
		n := min(fragment, len(message))
		out = append(append(out, 22, 3, 1, byte(n>>8), byte(n)), message[:n]...)
		message = message[n:]
	}
	return out
}

func TestTheServerNameIsFoundAndNothingBehindTheHelloIsRead(t *testing.T) {
	for _, fragment := range []int{0, 1, 3, 100} {
		hello := helloFor(t, "hangzhou-2", fragment)
		r := bytes.NewReader(append(bytes.Clone(hello), "next"...))
		raw, name, err := Read(r)
		if err != nil || name != "hangzhou-2" || !bytes.Equal(raw, hello) {
			t.Errorf("in pieces of %d: %q, %v", fragment, name, err)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "next" {
			t.Errorf("in pieces of %d: %q is left", fragment, rest)
		}
	}
}

func TestBadHellosAreRefused(t *testing.T) {
	good := helloFor(t, "hangzhou-2", 0)
	huge := append([]byte{22, 3, 1, 64, 0, 1, 0, 255, 255}, make([]byte, maxRecord-4)...)
	for name, c := range map[string]struct {
		bytes []byte
		want  refusal.Reason
	}{
		"no name":     {helloFor(t, "192.0.2.1", 0), refusal.NoServerName},
		"HTTP":        {[]byte("GET / HTTP/1.1\r\n\r\n"), refusal.BadClientHello},
		"an alert":    {[]byte{21, 3, 1, 0, 2, 2, 40}, refusal.BadClientHello},
		"empty":       {[]byte{22, 3, 1, 0, 0}, refusal.BadClientHello},
		"huge":        {append(huge, huge...), refusal.BadClientHello},
		"other hello": {append([]byte{22, 3, 1, 0, 4}, 2, 0, 0, 0), refusal.BadClientHello},
		"cut inside":  {append([]byte{22, 3, 1, 0, 38}, append([]byte{1, 0, 0, 34}, good[9:43]...)...), refusal.BadClientHello},
	} {
		if _, got, err := Read(bytes.NewReader(c.bytes)); err == nil || refusal.Of(err).Reason != c.want {
			t.Errorf("%s: %q, %v, want %s", name, got, err, c.want)
		}
	}
	if _, _, err := Read(bytes.NewReader(good[:100])); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a hello that ends early: %v", err)
	}
}

func TestAHelloInVeryManyRecordsIsNotReadToItsEnd(t *testing.T) {
	var many []byte // 16 KiB, each byte in a record of its own
	for _, b := range append([]byte{typeClientHello, 0, 63, 0}, make([]byte, 63<<8)...) {
		many = append(many, typeHandshake, 3, 1, 0, 1, b)
	}
	r := bytes.NewReader(many)
	if _, _, err := Read(r); refusal.Of(err).Reason != refusal.BadClientHello {
		t.Errorf("it is %v", err)
	}
	if read := len(many) - r.Len(); read > maxRead+recordHeader {
		t.Errorf("%d of %d bytes were read", read, len(many))
	}
}

func FuzzClientHello(f *testing.F) {
	f.Add(helloFor(f, "hangzhou-2", 0))
	f.Add(helloFor(f, "hangzhou-2", 50))
	f.Add([]byte{22, 3, 1, 0, 4, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		raw, name, err := Read(r)
		if err == nil && (name == "" || !bytes.HasPrefix(data, raw) || len(raw)+r.Len() != len(data)) {
			t.Fatalf("%q of %d bytes, %d of them", name, len(data), len(raw))
		}
		if len(data)-r.Len() > maxRead+recordHeader {
			t.Fatalf("%d bytes were read", len(data)-r.Len())
		}
	})
}
