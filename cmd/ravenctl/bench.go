package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ravencni/raven/pkg/ctl/pathbench"
	"github.com/ravencni/raven/pkg/program"
)

// Hidden commands that bench runs on the two nodes.
const (
	serveBench = "bench-serve"
	askBench   = "bench-ask"
)

func (c *command) benchCommand() *cobra.Command {
	var length time.Duration
	cmd := &cobra.Command{
		Use:   "bench NODE NODE",
		Short: "Measure the way between two nodes of the cluster: round trips and one TCP stream",
		Long: "bench runs a server on the second node and a client on the first, by kubectl exec into the agents' pods: under your own rights.\n" +
			"The server listens on a port that the kernel chooses, serves only who knows a secret of this run, and ends with it. The stream takes\n" +
			"what the way gives: do not run it where that hurts.",
		Example: "  ravenctl bench hangzhou-1 qingdao-1\n  ravenctl bench hangzhou-2 cloud-2 --for=20s -o json",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 || args[0] == args[1] {
				return program.Usage("name two nodes, such as ravenctl bench hangzhou-1 qingdao-1; see %s --help", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if length <= 0 || length > time.Minute {
				return program.Usage("--for is %s: it must be positive, and a minute at most", length)
			}
			if err := kubectlFound(); err != nil {
				return err
			}
			return c.bench(cmd.Context(), args[0], args[1], length)
		},
	}
	cmd.Flags().DurationVar(&length, "for", 6*time.Second, "how long to measure")
	return cmd
}

func (c *command) bench(ctx context.Context, from, to string, length time.Duration) error {
	client, err := c.agentPod(ctx, from)
	if err != nil {
		return err
	}
	server, err := c.agentPod(ctx, to)
	if err != nil {
		return err
	}
	address, err := c.kubectl(ctx, "get", "node", to, "-o", `jsonpath={.status.addresses[?(@.type=="InternalIP")].address}`)
	if err != nil {
		return err
	}
	host, _, _ := strings.Cut(strings.TrimSpace(address), " ")
	if host == "" {
		return fmt.Errorf("node %s has no InternalIP", to)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	serve := exec.CommandContext(ctx, "kubectl", "exec", "-i", "-n", namespace, server, "--", "ravenctl", serveBench)
	serve.Stderr = c.err
	hold, err := serve.StdinPipe() // its end is the server's
	if err != nil {
		return fmt.Errorf("hold the server on node %s: %w", to, err)
	}
	said, err := serve.StdoutPipe()
	if err != nil {
		return fmt.Errorf("listen to the server on node %s: %w", to, err)
	}
	if err := serve.Start(); err != nil {
		return fmt.Errorf("start the server on node %s: %w", to, err)
	}
	defer func() {
		_ = hold.Close()
		_ = serve.Wait() // it has ended with its input; what it measured came from the other side
	}()
	var port, secret string
	if _, err := fmt.Fscan(bufio.NewReader(said), &port, &secret); err != nil {
		return fmt.Errorf("the server on node %s did not say its port (kubectl exec needs create on pods/exec in %s): %w", to, namespace, err)
	}
	out, err := c.kubectl(ctx, "exec", "-n", namespace, client, "--", "ravenctl", askBench, net.JoinHostPort(host, port), secret, length.String())
	if err != nil {
		return fmt.Errorf("measure from node %s to node %s at %s (do their addresses conflict? ravenctl doctor says): %w", from, to, host, err)
	}
	var r pathbench.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return fmt.Errorf("read what node %s measured: %w", from, err)
	}
	r.From, r.To = from, to
	return c.print(r, func(w io.Writer) error { return pathbench.Write(w, r) })
}

// benchOnNode are the two ends, which bench runs by kubectl exec.
func (c *command) benchOnNode(in io.Reader) []*cobra.Command {
	serve := &cobra.Command{Use: serveBench, Hidden: true, Args: noArguments, RunE: func(cmd *cobra.Command, _ []string) error {
		l, err := (&net.ListenConfig{}).Listen(cmd.Context(), "tcp", ":0")
		if err != nil {
			return fmt.Errorf("listen for a measurement: %w", err)
		}
		secret := rand.Text()
		if _, err := fmt.Fprintf(c.out, "%d %s\n", l.Addr().(*net.TCPAddr).Port, secret); err != nil {
			return fmt.Errorf("say the port: %w", err)
		}
		const most = 2 * time.Minute // should the other side vanish
		ctx, cancel := context.WithTimeout(cmd.Context(), most)
		defer cancel()
		go func() {
			defer cancel()
			_, _ = io.Copy(io.Discard, in) // ends with whoever wants the measurement, or with this process
		}()
		return pathbench.Serve(ctx, l, secret)
	}}
	ask := &cobra.Command{Use: askBench, Hidden: true, Args: cobra.ExactArgs(3), RunE: func(cmd *cobra.Command, args []string) error {
		length, err := time.ParseDuration(args[2])
		if err != nil {
			return program.Usage("%q is no duration", args[2])
		}
		r, err := pathbench.Ask(cmd.Context(), args[0], args[1], length)
		if err != nil {
			return err
		}
		return json.NewEncoder(c.out).Encode(r)
	}}
	return []*cobra.Command{serve, ask}
}
