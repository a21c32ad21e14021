package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/ravencni/raven/pkg/controller"
	"github.com/ravencni/raven/pkg/program"
	"github.com/ravencni/raven/pkg/version"
)

const examples = `  # In the cluster, with the pod's service account; one of several replicas works at a time:
  raven-controller

  # From outside, alone, against the cluster of a kubeconfig file:
  raven-controller --kubeconfig=$HOME/.kube/config --leader-elect=false

  # Name the cluster's service ranges, as the agents do, so that prefixes that overlap them are reported:
  raven-controller --service-cidrs=10.96.0.0/12,fd00:10:96::/112

  # Look at it:
  curl -s localhost:10276/readyz; curl -s localhost:10266/metrics | grep ^raven_
  kubectl get gateways -o wide; kubectl describe gateway gw-cloud`

// command is the program with its outputs.
type command struct {
	root *cobra.Command
	err  io.Writer

	kubeconfig   string
	logLevel     string
	serviceCIDRs []string
	options      controller.Options
	// work does it; tests replace it.
	work func(context.Context, *rest.Config, controller.Options) error
}

func newCommand(out, err io.Writer) *command {
	c := &command{err: err, work: controller.Run}
	c.root = &cobra.Command{
		Use:   "raven-controller",
		Short: "Elect the gateways of all regions, and say why",
		Long: "raven-controller watches Gateways, Nodes and TunnelEndpoints, elects each Gateway's active endpoints, fills its\n" +
			"status, and keeps the proxy's Services and DNS records. Ending it changes nothing: what it wrote stays.\n" +
			"It needs Kubernetes 1.30 or later.",
		Example:       examples,
		Args:          noArguments,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version.String(),
		RunE:          c.main,
	}
	c.root.SetOut(out)
	c.root.SetErr(err)
	c.root.CompletionOptions.DisableDefaultCmd = true
	c.root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return program.Usage("%w; see raven-controller --help", err)
	})
	f := c.root.Flags()
	f.SortFlags = false
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "file that says how to reach the API server; empty: the pod's service account")
	f.BoolVar(&c.options.LeaderElection, "leader-elect", true, "work only while holding the Lease raven-controller")
	f.StringVar(&c.options.LeaseNamespace, "leader-elect-namespace", controller.Namespace, "namespace of that Lease")
	f.DurationVar(&c.options.LeaseDuration, "leader-elect-lease-duration", 0, "how long a leader that has died keeps others waiting; 0: 15s")
	f.StringSliceVar(&c.serviceCIDRs, "service-cidrs", nil, "the cluster's service ranges; prefixes that overlap them are reported as conflicts")
	f.StringVar(&c.options.MetricsAddress, "metric-bind-addr", ":10266", "address of /metrics; 0: none")
	f.StringVar(&c.options.HealthAddress, "health-probe-addr", ":10276", "address of /healthz and /readyz; 0: none")
	f.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
	c.root.AddCommand(c.cleanNodesCommand())
	return c
}

func noArguments(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return program.Usage("%w; see raven-controller --help", err)
	}
	return nil
}

func (c *command) run(ctx context.Context, args []string) error {
	if args == nil {
		args = []string{} // cobra takes nil for os.Args
	}
	c.root.SetArgs(args)
	return c.root.ExecuteContext(ctx)
}

func (c *command) main(cmd *cobra.Command, _ []string) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.logLevel)); err != nil {
		return program.Usage("--log-level is %q: use debug, info, warn or error", c.logLevel)
	}
	for _, text := range c.serviceCIDRs {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return program.Usage("--service-cidrs: %q is no range; write it like 10.96.0.0/12", text)
		}
		c.options.ServiceCIDRs = append(c.options.ServiceCIDRs, p.Masked())
	}
	if d := c.options.LeaseDuration; d < 0 {
		return program.Usage("--leader-elect-lease-duration is %s: it must not be negative", d)
	}
	log := slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(log)
	klog.SetSlogLogger(log)
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
	c.options.Log = log
	config, err := c.config()
	if err != nil {
		return err
	}
	return c.work(cmd.Context(), config, c.options)
}

func (c *command) config() (*rest.Config, error) {
	if c.kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("no --kubeconfig, and not in a pod: %w", err)
		}
		return config, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", c.kubeconfig, err)
	}
	return config, nil
}
