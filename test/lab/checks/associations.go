package checks

import (
	"context"
	"errors"
	"fmt"

	"github.com/ravencni/raven/pkg/tunnel/ipsec"
	"github.com/ravencni/raven/pkg/tunnel/ipsec/vici"
	"github.com/ravencni/raven/test/lab"
)

// associations are the IPsec tunnels of a gateway, by "<node> peer <peer>". The key is charon's number, which each new
// negotiation raises.
func associations(ctx context.Context, l *lab.Lab, gateway string, all map[string]tunnelState) error {
	v, err := vici.Dial(ctx, l.Host(gateway).Path(ipsec.DefaultRunDir+"/charon.vici"))
	if err != nil {
		return fmt.Errorf("on %s: %w", gateway, err)
	}
	_, err = v.Stream(ctx, "list-sas", "list-sa", nil, func(m *vici.Message) {
		for _, peer := range m.Keys() {
			all[gateway+" peer "+peer] = tunnelState{key: m.Section(peer).Get("uniqueid")}
		}
	})
	if err = errors.Join(err, v.Close()); err != nil {
		return fmt.Errorf("list the associations of %s: %w", gateway, err)
	}
	return nil
}
