package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
)

// minMinor of Kubernetes 1: the first with ValidatingAdmissionPolicies for all.
const minMinor = 30

// ErrTooOld says that the API server is older than Raven can work with.
var ErrTooOld = errors.New("this Kubernetes is too old")

// CheckVersion refuses versions of Kubernetes that Raven cannot work with, such as "v1.29.4".
func CheckVersion(text string) error {
	v, err := version.ParseGeneric(text)
	if err != nil {
		return fmt.Errorf("the API server says that it is Kubernetes %q: %w", text, err)
	}
	if v.LessThan(version.MustParseGeneric(fmt.Sprintf("1.%d.0", minMinor))) {
		return fmt.Errorf("%w: the API server is Kubernetes %s, and Raven needs 1.%d or later for its admission policies: upgrade the cluster",
			ErrTooOld, text, minMinor)
	}
	return nil
}

// AwaitVersion waits for the API server's answer and checks its version.
func AwaitVersion(ctx context.Context, config *rest.Config, log *slog.Logger) error {
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return fmt.Errorf("make a client of the API server at %s: %w", config.Host, err)
	}
	ticker := time.NewTicker(2 * time.Second)
	defer ticker.Stop()
	for {
		info, err := client.ServerVersion()
		if err == nil {
			return CheckVersion(info.GitVersion)
		}
		log.Warn("the API server does not answer; trying again", "server", config.Host, "error", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("ask the API server at %s for its version: %w", config.Host, err)
		case <-ticker.C:
		}
	}
}
