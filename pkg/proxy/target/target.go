// Package target reads what a client of the L7 proxy asks for: a host and a port, from a Host header, a CONNECT line or
// a server name.
package target

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// maxName is the longest name of a node in bytes: that of a DNS name (RFC 1035, section 2.3.4).
const maxName = 253

// Host is a name in lower case without a dot at its end, or an address.
type Host struct {
	Name    string
	Address netip.Addr
}

// String is the host as it stands before the port, without brackets.
func (h Host) String() string {
	if h.Address.IsValid() {
		return h.Address.String()
	}
	return h.Name
}

// HostPort is a host and a port from 1 to 65535.
type HostPort struct {
	Host
	Port uint16
}

// String is host:port, or [host]:port for IPv6.
func (t HostPort) String() string {
	if t.Address.IsValid() {
		return netip.AddrPortFrom(t.Address, t.Port).String()
	}
	return t.Name + ":" + strconv.Itoa(int(t.Port))
}

// Parse reads host:port. Without a port it takes the fallback; with fallback 0 a port must be there.
func Parse(text string, fallback uint16) (HostPort, error) {
	host, port, err := split(text)
	if err != nil {
		return HostPort{}, err
	}
	h, err := ParseHost(host)
	if err != nil {
		return HostPort{}, err
	}
	if port == "" {
		if fallback == 0 {
			return HostPort{}, fmt.Errorf("%s has no port", shown(text))
		}
		return HostPort{Host: h, Port: fallback}, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port[0] == '+' {
		return HostPort{}, fmt.Errorf("%s has no port from 1 to 65535", shown(text))
	}
	return HostPort{Host: h, Port: uint16(n)}, nil
}

// split parts host and port. IPv6 stands in brackets where there is a port.
func split(text string) (host, port string, err error) {
	if rest, ok := strings.CutPrefix(text, "["); ok {
		host, rest, ok = strings.Cut(rest, "]")
		if !ok || !strings.Contains(host, ":") || (rest != "" && !strings.HasPrefix(rest, ":")) || rest == ":" {
			return "", "", fmt.Errorf("%s is no [address]:port", shown(text))
		}
		return host, strings.TrimPrefix(rest, ":"), nil
	}
	host, port, found := strings.Cut(text, ":")
	switch {
	case !found:
		return text, "", nil
	case strings.Contains(port, ":"): // IPv6 without brackets, and so without a port
		return text, "", nil
	case port == "":
		return "", "", fmt.Errorf("%s ends where the port should be", shown(text))
	}
	return host, port, nil
}

// ParseHost reads a name as Nodes may have it (RFC 1123 subdomain), or an address without zone.
func ParseHost(text string) (Host, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		if a.Zone() != "" {
			return Host{}, fmt.Errorf("address %s has a zone", shown(text))
		}
		return Host{Address: a.Unmap()}, nil
	}
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	if _, err := netip.ParseAddr(name); err == nil {
		return Host{}, fmt.Errorf("%s is an address, which has no dot at its end", shown(text))
	}
	if name == "" || len(name) > maxName {
		return Host{}, fmt.Errorf("%s is no name of a node: it has %d bytes", shown(text), len(name))
	}
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			return Host{}, fmt.Errorf("%s is no name of a node", shown(text))
		}
	}
	return Host{Name: name}, nil
}

func isLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := range len(label) {
		c := label[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// shown quotes a client's words, of which a log needs no more than the beginning.
func shown(text string) string {
	const most = 80
	if len(text) > most {
		return strconv.QuoteToASCII(text[:most]) + "..."
	}
	return strconv.QuoteToASCII(text)
}
