package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	goruntime "runtime"
	"time"

	"github.com/go-logr/logr"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/controller/calico"
	"github.com/ravencni/raven/pkg/controller/inventory"
	"github.com/ravencni/raven/pkg/controller/signing"
	"github.com/ravencni/raven/pkg/version"
)

// Options of the controller.
type Options struct {
	// MetricsAddress and HealthAddress are where to listen; "0": not at all.
	MetricsAddress, HealthAddress string
	// LeaderElection lets one of several controllers work, the holder of Lease LeaseNamespace/raven-controller.
	LeaderElection bool
	// LeaseNamespace; empty: kube-system.
	LeaseNamespace string
	// LeaseDuration is how long a leader that has died keeps others from taking over; 0: 15 s.
	LeaseDuration time.Duration
	// ServiceCIDRs are the cluster's service ranges, as the agents have them.
	ServiceCIDRs []netip.Prefix
	Log          *slog.Logger
}

const (
	// Requests a second, and in a burst: a fresh cluster of a thousand gateways is written in seconds. The API server's
	// own priority and fairness protects it.
	requestsPerSecond, burst = 200, 400
	// workers on gateways at a time; they wait for the API server most of the time.
	workers = 8
	// retryMin and retryMax bound the time between attempts that fail.
	retryMin, retryMax = 100 * time.Millisecond, 10 * time.Second
	// lookForCalico and lookForForeign are how often these are looked for.
	lookForCalico, lookForForeign = 30 * time.Second, time.Minute
	// makeSureOfSecret is how often a pre-shared key is made where there is none.
	makeSureOfSecret = 5 * time.Minute
)

// Run works until ctx is done, or until the Lease is lost.
func Run(ctx context.Context, config *rest.Config, opts Options) error {
	config = rest.CopyConfig(config)
	config.UserAgent = fmt.Sprintf("%s/%s (%s/%s)", Name, version.String(), goruntime.GOOS, goruntime.GOARCH)
	config.QPS, config.Burst = requestsPerSecond, burst
	if err := AwaitVersion(ctx, config, opts.Log); err != nil {
		return err
	}
	mgr, err := newManager(config, opts)
	if err != nil {
		return err
	}
	if err := add(mgr, opts); err != nil {
		return err
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run the controllers: %w", err)
	}
	return nil
}

func newManager(config *rest.Config, opts Options) (manager.Manager, error) {
	scheme := apiruntime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1beta1.AddToScheme(scheme), calico.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("register the API's types: %w", err)
	}
	namespace := opts.LeaseNamespace
	if namespace == "" {
		namespace = Namespace
	}
	lease := opts.LeaseDuration
	if lease == 0 {
		lease = 15 * time.Second
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme,
		Logger: logr.FromSlogHandler(quiet{opts.Log.Handler()}),
		Cache:  cacheOptions(),
		Metrics: metricsserver.Options{
			BindAddress: opts.MetricsAddress,
		},
		HealthProbeBindAddress: opts.HealthAddress,
		LeaderElection:         opts.LeaderElection, LeaderElectionID: Name, LeaderElectionNamespace: namespace,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &lease, RenewDeadline: ptr.To(lease * 2 / 3), RetryPeriod: ptr.To(lease / 8),
	})
	if meta.IsNoMatchError(err) {
		return nil, fmt.Errorf("the CRDs of Raven are not installed: kubectl apply -f manifests/crds: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the API server at %s: %w", config.Host, err)
	}
	return mgr, nil
}

// cacheOptions keep only what is read. Objects whose copies nobody changes are handed out uncopied.
func cacheOptions() cache.Options {
	shared := ptr.To(true)
	ours := map[string]cache.Config{Namespace: {}}
	return cache.Options{
		DefaultTransform: trimAny,
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Node{}:            {Transform: trimNode, UnsafeDisableDeepCopy: shared},
			&v1beta1.Gateway{}:        {Transform: trimGateway, UnsafeDisableDeepCopy: shared},
			&v1beta1.TunnelEndpoint{}: {Transform: trimEndpoint, UnsafeDisableDeepCopy: shared},
			&corev1.Service{}:         {Namespaces: ours},
			// The signer reads those that are its own anew.
			&certificatesv1.CertificateSigningRequest{}: {Transform: trimRequest, UnsafeDisableDeepCopy: shared},
			&discoveryv1.EndpointSlice{}:                {Namespaces: ours},
		},
	}
}

// add puts the parts together.
func add(mgr manager.Manager, opts Options) error {
	v := inventory.New()
	a := newAnalyst(v, opts.ServiceCIDRs, opts.Log)
	records := &bell{every: pause}
	configs, err := newConfigCaches(mgr)
	if err != nil {
		return err
	}
	f := &feed{cache: mgr.GetCache(), configs: configs, mapper: mgr.GetRESTMapper(), inventory: v, analyst: a,
		changed: []func(){a.notice, records.ring}, log: opts.Log, ready: make(chan struct{})}
	a.tell = f.enqueue

	signer := &signing.Signer{Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Namespace: Namespace, State: v.State, Now: time.Now, Log: opts.Log}
	gone := &garbage{client: mgr.GetClient(), live: mgr.GetAPIReader(), log: opts.Log}
	words := newDegraded(mgr.GetClient(), newRecorder(mgr.GetClient(), opts.Log))
	return errors.Join(
		addController(mgr, "degraded", words, 1,
			source.Kind(mgr.GetCache(), &v1beta1.TunnelEndpoint{}, handler.TypedEnqueueRequestsFromMapFunc(sameName[*v1beta1.TunnelEndpoint]))),
		addController(mgr, "gateway", newGatewayReconciler(mgr.GetClient(), v, a, opts.Log), workers, f),
		addController(mgr, "services", &serving{client: mgr.GetClient(), dns: configs[dnsName], inventory: v, log: opts.Log}, 1, after(f.ready, records)),
		addController(mgr, "garbage", gone, 1,
			source.Kind(mgr.GetCache(), &v1beta1.TunnelEndpoint{}, handler.TypedEnqueueRequestsFromMapFunc(sameName[*v1beta1.TunnelEndpoint]), created[*v1beta1.TunnelEndpoint]()),
			source.Kind(mgr.GetCache(), &corev1.Node{}, handler.TypedEnqueueRequestsFromMapFunc(sameName[*corev1.Node]), deleted[*corev1.Node]())),
		addController(mgr, "certificates", signer, 1,
			after(f.ready, source.Kind(mgr.GetCache(), &certificatesv1.CertificateSigningRequest{},
				handler.TypedEnqueueRequestsFromMapFunc(sameName[*certificatesv1.CertificateSigningRequest])))),
		mgr.Add(background{signer.Keep}),
		mgr.Add(&foreign{live: mgr.GetAPIReader(), analyst: a, every: lookForForeign, now: time.Now, log: opts.Log}),
		mgr.Add(background{func(ctx context.Context) error { return f.lookForBlocks(ctx, lookForCalico) }}),
		mgr.Add(background{a.Start}),
		mgr.Add(background{(&preshared{client: mgr.GetClient(), every: makeSureOfSecret, log: opts.Log}).run}),
		mgr.AddHealthzCheck("ping", healthz.Ping),
		mgr.AddReadyzCheck("cache", cacheCheck(mgr)),
	)
}

func addController(mgr manager.Manager, name string, r reconcile.Reconciler, workers int, sources ...source.Source) error {
	c, err := controller.New(name, mgr, controller.Options{
		Reconciler: r, MaxConcurrentReconciles: workers, SkipNameValidation: ptr.To(true),
		RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryMin, retryMax),
	})
	if err != nil {
		return fmt.Errorf("make controller %s: %w", name, err)
	}
	for _, s := range sources {
		if err := c.Watch(s); err != nil {
			return fmt.Errorf("make controller %s: %w", name, err)
		}
	}
	return nil
}

func sameName[T client.Object](_ context.Context, object T) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: object.GetName()}}}
}

// quiet shows the library's steps at level debug only; its warnings and errors always.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	if level < slog.LevelWarn {
		level = slog.LevelDebug
	}
	return q.Handler.Enabled(ctx, level)
}

func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }
func (q quiet) WithGroup(name string) slog.Handler       { return quiet{q.Handler.WithGroup(name)} }
