package controller

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// newConfigCaches makes a cache for each ConfigMap that the controller reads: one watch by name each, so that it needs
// no right to read the others in the namespace.
func newConfigCaches(mgr manager.Manager) (map[string]cache.Cache, error) {
	out := make(map[string]cache.Cache, 3)
	for _, name := range []string{switchesName, settingsName, dnsName} {
		c, err := cache.New(mgr.GetConfig(), cache.Options{
			HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(), DefaultTransform: trimAny,
			ByObject: map[client.Object]cache.ByObject{&corev1.ConfigMap{}: {Namespaces: map[string]cache.Config{
				Namespace: {FieldSelector: fields.OneTermEqualSelector("metadata.name", name)},
			}}},
		})
		if err == nil {
			err = mgr.Add(c)
		}
		if err != nil {
			return nil, fmt.Errorf("make a cache of ConfigMap %s/%s: %w", Namespace, name, err)
		}
		out[name] = c
	}
	return out, nil
}
