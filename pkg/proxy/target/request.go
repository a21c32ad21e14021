package target

import (
	"net/url"

	"github.com/ravencni/raven/pkg/proxy/refusal"
)

// httpPort is that of a Host header without one.
const httpPort = 80

// OfHostHeader reads a Host header. The error is a *refusal.Error.
func OfHostHeader(host string) (HostPort, error) {
	to, err := Parse(host, httpPort)
	if err == nil && (&url.URL{Host: to.String()}).Port() == "" {
		err = refusal.New(refusal.BadTarget, "", "", "a Host without a port")
	}
	if err != nil {
		return HostPort{}, refusal.New(refusal.BadTarget, "", "", "Host: %v", err)
	}
	return to, nil
}

// OfConnect reads what a CONNECT asks for. The error is a *refusal.Error.
func OfConnect(uri string) (HostPort, error) {
	to, err := Parse(uri, 0)
	if err != nil {
		return HostPort{}, refusal.New(refusal.BadTarget, "", "", "%v", err)
	}
	return to, nil
}
