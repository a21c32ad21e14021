package target

import (
	"strings"
	"testing"
)

func FuzzConnect(f *testing.F) {
	for _, seed := range []string{"hangzhou-1:10250", "10.96.0.1:443", "[fd00::1]:443", "/x", "http://a:1/", "a:1 b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		to, err := OfConnect(uri)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Fatalf("%q", err)
			}
			return
		}
		if again, err := OfConnect(to.String()); err != nil || again != to {
			t.Fatalf("%q is read as %v, and that as %v, %v", uri, to, again, err)
		}
		if web, err := OfHostHeader(uri); err != nil || web != to {
			t.Fatalf("%q is %v for CONNECT and %v for HTTP, %v", uri, to, web, err)
		}
	})
}
