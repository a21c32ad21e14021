package bench

import (
	"context"
	"strings"

	"github.com/ravencni/raven/test/lab"
)

// congestion is the TCP congestion control of all connections, the kernel's own default. Machines are set to others: BBR, for
// one, sends at the pace that it believes the path to have, so that not the path is measured but that belief, and it takes its
// time with each acknowledgement.
const congestion = "cubic"

// setCongestion has the connections of a pod use it, also of programs that cannot be told so. It is set on the pod's route, since
// a network namespace may not choose as its default what the machine does not allow to everyone.
func setCongestion(ctx context.Context, pod *lab.Host) error {
	route, err := pod.Run(ctx, "ip", "-4", "route", "show", "default")
	if err != nil {
		return err
	}
	_, err = pod.Run(ctx, "ip", append(append([]string{"route", "change"}, strings.Fields(route)...), "congctl", congestion)...)
	return err
}
