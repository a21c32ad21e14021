package target

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"hangzhou-1:10250":       "hangzhou-1:10250",
		"Hangzhou-1.:10250":      "hangzhou-1:10250",
		"a.b.example":            "a.b.example:80",
		"10.0.0.1:443":           "10.0.0.1:443",
		"[fd00::1]:443":          "[fd00::1]:443",
		"fd00::1":                "[fd00::1]:80",
		"[fd00::1]":              "[fd00::1]:80",
		"[::ffff:10.0.0.1]:8080": "10.0.0.1:8080",
	} {
		if got, err := Parse(text, 80); err != nil || got.String() != want {
			t.Errorf("%q is read as %v, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", ":", ":80", "a:", "a:0", "a:65536", "a:+80", "a:-1", "a:http", "a b:80", "a_b:80", "-a:80", "a-:80", "a..b:80",
		"[10.0.0.1]:80", "[fd00::1]80", "[fd00::1]:", "[fd00::1:80", "fe80::1%eth0", "user@a:80", "a/b:80", "a\r\nb:80",
		strings.Repeat("a", 64) + ":80", strings.Repeat("a.", 127) + "a:80", "ü:80",
		"0.0.0.0.", "10.0.0.1.:443",
	} {
		if got, err := Parse(text, 80); err == nil {
			t.Errorf("%q is read as %v, and should be refused", text, got)
		}
	}
	if _, err := Parse("a", 0); err == nil {
		t.Error("a missing port is accepted though there is no fallback")
	}
}

// What is accepted reads the same again, and nothing in it can break out of a header or a line.
func FuzzHost(f *testing.F) {
	for _, seed := range []string{"a:80", "10.0.0.1:1", "[fd00::1]:443", "a.b.", "[", "a:b:c", "%", "A:65535", "10.0.0.1.:80"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Parse(text, 80)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n") || len(err.Error()) > 600 {
				t.Fatalf("the error repeats what the client sent: %q", err)
			}
			return
		}
		if got.Port == 0 || strings.ContainsAny(got.String(), "\r\n \t/@%") {
			t.Fatalf("%q is read as %q", text, got.String())
		}
		again, err := Parse(got.String(), 0)
		if err != nil || again != got {
			t.Fatalf("%q is read as %v, and that as %v, %v", text, got, again, err)
		}
	})
}
