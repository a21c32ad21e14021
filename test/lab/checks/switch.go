package checks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ravencni/raven/test/lab"
)

// mostSwitchLoss is how much traffic a switch to another driver and back may lose on any way.
const mostSwitchLoss = time.Second

// SwitchDrivers switches all regions from IPsec to WireGuard and back, while pods behind NATs ping one another by the
// relay, a pod in the cloud one behind a NAT, and a gateway another one, 100 times a second. It needs agents whose driver
// is configured (see lab.AgentOptions).
var SwitchDrivers = Check{
	Name: "switch-drivers",
	Says: "all regions change from IPsec to WireGuard and back: a second of traffic is lost at most",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		var probers []*lab.Prober
		for _, way := range [][2]string{{"hangzhou-2/a", "qingdao-2/a"}, {"cloud-2/a", "hangzhou-2/a"}, {"qingdao-1", "cloud-1"}} {
			for _, family := range []int{4, 6} {
				p, err := probe(ctx, l, way[0], way[1], family)
				if err != nil {
					return "", err
				}
				probers = append(probers, p)
			}
		}
		var evidence []string
		var err error
		for _, driver := range []string{"wireguard", "ipsec"} {
			began := time.Now()
			err = errors.Join(err, l.ConfigureDriver(driver), awaitOnly(ctx, l, driver))
			evidence = append(evidence, fmt.Sprintf("%s alone after %.1f s", driver, time.Since(began).Seconds()))
			for _, p := range probers {
				err = errors.Join(err, p.AwaitAnswers(ctx, int(time.Second/pingEvery)))
			}
		}
		for _, p := range probers {
			r, stopErr := p.Stop(ctx)
			if lost := time.Duration(len(r.Lost)) * pingEvery; lost > mostSwitchLoss || r.Gap > mostSwitchLoss {
				err = errors.Join(err, fmt.Errorf("traffic was lost for %s: %s", lost, r), stopErr)
			}
			evidence = append(evidence, fmt.Sprintf("%d of %d lost", len(r.Lost), r.Sent))
		}
		return strings.Join(evidence, ", "), err
	},
}

// awaitOnly waits until no gateway has a device of another driver.
func awaitOnly(ctx context.Context, l *lab.Lab, driver string) error {
	device := map[string]string{"wireguard": "raven-wg", "ipsec": "raven-ipsec"}
	for i := range l.Spec.Regions {
		gateway := l.Spec.Regions[i].Gateway().Name
		err := lab.Await(ctx, gateway+" to have no driver but "+driver, func(ctx context.Context) error {
			out, err := l.Host(gateway).Run(ctx, "ls", "/sys/class/net")
			if err != nil {
				return err
			}
			for other, prefix := range device {
				has := slices.ContainsFunc(strings.Fields(out), func(name string) bool { return strings.HasPrefix(name, prefix) })
				if has != (other == driver) {
					return fmt.Errorf("its devices are %s", strings.Join(strings.Fields(out), " "))
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
