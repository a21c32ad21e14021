package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

const tunnelLabels = "app.kubernetes.io/component=tunnel"

// associations asks strongSwan on every gateway, as docs/operate.md shows: each has tunnels.
func associations(w *world) {
	command := w.documented("docs/operate.md", "kubectl -n kube-system exec <raven-tunnel-ds")
	for _, name := range w.gateways() {
		pod := w.kubectl("-n", "kube-system", "get", "pod", "-l", tunnelLabels, "--field-selector=spec.nodeName="+name, "-o", "jsonpath={.items[0].metadata.name}")
		args := strings.Fields(strings.Replace(command, "<raven-tunnel-ds-...>", pod, 1))[1:]
		w.await("strongSwan on "+name+" to list its tunnels", func(ctx context.Context) error {
			out, err := w.server.Kubectl(ctx, "", args...)
			if err == nil && strings.Count(out, ", ESTABLISHED, ") == 0 {
				err = errors.New("it lists " + out)
			}
			return err
		})
	}
}

// gateways are the nodes that are gateways of their regions.
func (w *world) gateways() (names []string) {
	for i := range w.lab.Spec.Regions {
		names = append(names, w.lab.Spec.Regions[i].Gateway().Name)
	}
	return names
}

// switchDrivers changes the running regions to WireGuard and back, as docs/install.md says, and loses a second of traffic
// on each way at most.
func switchDrivers(w *world) {
	const pause, most = 200 * time.Millisecond, time.Second // between two pings; what a switch may cost
	var pings []*pinging
	for _, way := range [][2]string{{"hangzhou-2", w.podIP("early-qingdao-2").String()}, {"cloud-2", w.podIP("early-hangzhou-2").String()},
		{"qingdao-1", w.spec("cloud-1").IP4.String()}} {
		pings = append(pings, w.ping(w.nodes[way[0]], way[1]))
	}
	for _, driver := range []struct{ name, device, other string }{{"wireguard", "raven-wg0", "raven-ipsec0"}, {"ipsec", "raven-ipsec0", "raven-wg0"}} {
		began := time.Now()
		w.make("deploy", "VPN_DRIVER="+driver.name)
		for _, name := range w.gateways() {
			w.await(name+" to have "+driver.device+" alone", func(context.Context) error {
				links, err := w.nodes[name].Netlink().LinkList()
				if err != nil {
					return fmt.Errorf("list the devices of %s: %w", name, err)
				}
				have := map[string]bool{}
				for _, l := range links {
					have[l.Attrs().Name] = true
				}
				if !have[driver.device] || have[driver.other] {
					return fmt.Errorf("%s: %t, %s: %t", driver.device, have[driver.device], driver.other, have[driver.other])
				}
				return nil
			})
		}
		w.Logf("%s alone after %.1f s", driver.name, time.Since(began).Seconds())
	}
	for _, p := range pings {
		sent, answered := p.end(w)
		w.Logf("%s: %d sent, %d answered", p.what, sent, answered)
		if sent < 20 || time.Duration(sent-answered)*pause > most {
			w.Errorf("%s: %d of %d packets were answered:\n%s", p.what, answered, sent, p.output.String())
		}
	}
}

// replaceTunnels deletes the pod that holds the tunnels of the gateway between both edges, as an update of it needs. Traffic
// comes back by itself.
func replaceTunnels(w *world) {
	on := "--field-selector=spec.nodeName=" + master
	p := w.ping(w.nodes["hangzhou-2"], w.podIP("early-qingdao-2").String())
	w.kubectl("-n", "kube-system", "delete", "pod", "-l", tunnelLabels, on)
	w.kubectl("-n", "kube-system", "wait", "pod", "-l", tunnelLabels, on, "--for=condition=Ready", "--timeout=2m")
	w.pingPod("early-hangzhou-2", "early-qingdao-2", "59")
	sent, answered := p.end(w)
	w.Logf("%s: %d sent, %d answered", p.what, sent, answered)
	w.pingPod("early-cloud-2", "early-hangzhou-2", "60")
}
