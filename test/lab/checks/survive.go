package checks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ravencni/raven/pkg/tunnel/conformance"
	"github.com/ravencni/raven/test/lab"
)

// pingEvery makes 100 echo requests per second, and 10 where the machine is slow.
var pingEvery = func() time.Duration {
	if os.Getenv(conformance.SlowVariable) != "" {
		return 100 * time.Millisecond
	}
	return 10 * time.Millisecond
}()

// SurviveKill kills every agent with SIGKILL, one after another and then all at once, and starts them again, while a
// pod and a node of another region are pinged 100 times a second.
var SurviveKill = Check{
	Name: "survive-kill",
	Says: "kill -9 and restart of every agent: no packet lost, no new handshake, no changed key",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		before, err := settledTunnels(ctx, l)
		if err != nil {
			return "", err
		}
		var probers []*lab.Prober
		for _, p := range [][2]string{{"hangzhou-2/a", "qingdao-2/a"}, {"hangzhou-2", "qingdao-2"}} {
			for _, family := range []int{4, 6} {
				prober, err := probe(ctx, l, p[0], p[1], family)
				if err != nil {
					return "", err
				}
				probers = append(probers, prober)
			}
		}
		restartErr := restartAll(ctx, l)
		for _, p := range probers {
			restartErr = errors.Join(restartErr, p.AwaitAnswers(ctx, 50))
		}
		var evidence []string
		err = restartErr
		for _, p := range probers {
			r, stopErr := p.Stop(ctx)
			err = errors.Join(err, stopErr)
			if len(r.Lost) > 0 {
				err = errors.Join(err, fmt.Errorf("pings were lost: %s", r))
			}
			evidence = append(evidence, fmt.Sprintf("%d/%d", r.Received, r.Sent))
		}
		after, tunnelErr := tunnels(ctx, l)
		err = errors.Join(err, tunnelErr)
		err = errors.Join(err, sameTunnels(before, after))
		return "pings answered " + strings.Join(evidence, ", ") + "; handshakes and keys as before", err
	},
}

// rekeyTimeout is WireGuard's REKEY_TIMEOUT and the jitter on it, in whole seconds. The userspace device sets the timer of
// a retry once it has sent the first message of a handshake: where the answer was faster, as happens on a busy machine,
// the timer stands, and makes one more handshake.
const rekeyTimeout = 6

// settledTunnels are the tunnels once no handshake of their beginning can be repeated any more.
func settledTunnels(ctx context.Context, l *lab.Lab) (settled map[string]tunnelState, err error) {
	err = lab.Await(ctx, "the tunnels' first handshakes to be over", func(ctx context.Context) error {
		if settled, err = tunnels(ctx, l); err != nil {
			return err
		}
		for what, s := range settled {
			if age := time.Now().Unix() - s.handshake; age <= rekeyTimeout {
				return fmt.Errorf("%s: the last handshake is %d s old", what, age)
			}
		}
		return nil
	})
	return settled, err
}

// rekeyAfter is WireGuard's REKEY_AFTER_TIME in seconds: a tunnel in use makes a new handshake that often by itself.
const rekeyAfter = 120

// sameTunnels: no key and no peer changed, and no handshake was made before its time.
func sameTunnels(before, after map[string]tunnelState) error {
	var err error
	for what, b := range before {
		a, ok := after[what]
		switch {
		case !ok:
			err = errors.Join(err, fmt.Errorf("%s is gone", what))
		case a.key != b.key:
			err = errors.Join(err, fmt.Errorf("%s: the key changed", what))
		case a.handshake != b.handshake && a.handshake-b.handshake < rekeyAfter:
			err = errors.Join(err, fmt.Errorf("%s: a new handshake %d s after the last one", what, a.handshake-b.handshake))
		}
	}
	if len(after) != len(before) {
		err = errors.Join(err, fmt.Errorf("%d tunnels before, %d after", len(before), len(after)))
	}
	return err
}

func restartAll(ctx context.Context, l *lab.Lab) error {
	for _, node := range l.Nodes() {
		if err := l.RestartAgents(ctx, node); err != nil {
			return err
		}
	}
	return l.RestartAgents(ctx, l.Nodes()...)
}

func probe(ctx context.Context, l *lab.Lab, from, to string, family int) (*lab.Prober, error) {
	a, err := findEnd(l, from)
	if err != nil {
		return nil, err
	}
	b, err := findEnd(l, to)
	if err != nil {
		return nil, err
	}
	return a.host.Probe(ctx, b.addr(family), pingEvery)
}

// tunnelState is a device's key, or a peer's key and the time of its last handshake in seconds since 1970.
type tunnelState struct {
	key       string
	handshake int64
}

// tunnels are those of all gateways, by "<node> device" and "<node> peer <key>". With a driver that has no handshakes
// it is empty.
func tunnels(ctx context.Context, l *lab.Lab) (map[string]tunnelState, error) {
	all := map[string]tunnelState{}
	if l.Options().Driver == "plain" {
		return all, nil
	}
	for i := range l.Spec.Regions {
		gateway := l.Spec.Regions[i].Gateway().Name
		if l.Options().Driver == "ipsec" {
			if err := associations(ctx, l, gateway, all); err != nil {
				return nil, err
			}
			continue
		}
		out, err := l.Host(gateway).Run(ctx, "wg", "show", "all", "dump")
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			if len(f) < 9 { // the device's own line: name, private key, public key, port, mark
				all[gateway+" device"] = tunnelState{key: f[2]}
				continue
			}
			// Name, key, preshared key, endpoint, prefixes, last handshake, received, sent, keepalive.
			handshake, err := strconv.ParseInt(f[5], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("read the handshake of %q on %s: %w", line, gateway, err)
			}
			all[gateway+" peer "+f[1]] = tunnelState{key: f[1], handshake: handshake}
		}
	}
	return all, nil
}
