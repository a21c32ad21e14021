package regions_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// beat is how often a node renews its Lease.
	beat = time.Second
	// grace is how long the node lifecycle controller waits for a beat before it calls a node unready: many beats, for a
	// machine that is busy.
	grace = 20 * time.Second
)

// hearts renew the Leases of nodes as kubelets do, and say that a node is ready that was called unready.
type hearts struct {
	api  client.Client
	log  *slog.Logger
	stop context.CancelFunc
	beat sync.WaitGroup

	mu    sync.Mutex
	alive map[string]bool
}

func startHearts(api client.Client, log *slog.Logger, nodes []string) *hearts {
	ctx, stop := context.WithCancel(context.Background())
	h := &hearts{api: api, log: log, stop: stop, alive: map[string]bool{}}
	h.set(true, nodes...)
	for _, node := range nodes {
		h.beat.Go(func() { h.run(ctx, node) })
	}
	return h
}

func (h *hearts) end() {
	h.stop()
	h.beat.Wait()
}

// set lets the hearts of nodes beat or stand still.
func (h *hearts) set(alive bool, nodes ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, node := range nodes {
		h.alive[node] = alive
	}
}

func (h *hearts) beating(node string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.alive[node]
}

func (h *hearts) run(ctx context.Context, node string) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		if h.beating(node) {
			if err := h.once(ctx, node); err != nil && ctx.Err() == nil {
				h.log.Debug("a heartbeat was not written", "node", node, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (h *hearts) once(ctx context.Context, node string) error {
	ctx, cancel := context.WithTimeout(ctx, grace/4)
	defer cancel()
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: node},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: ptr.To(node), LeaseDurationSeconds: ptr.To(int32(grace / time.Second)),
			RenewTime: ptr.To(metav1.NowMicro())}}
	patch := fmt.Sprintf(`{"spec": {"renewTime": %q}}`, lease.Spec.RenewTime.UTC().Format(metav1.RFC3339Micro))
	err := h.api.Patch(ctx, lease.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch)))
	if apierrors.IsNotFound(err) {
		err = h.api.Create(ctx, lease)
	}
	if err != nil {
		return fmt.Errorf("renew the Lease of node %s: %w", node, err)
	}
	n := &corev1.Node{}
	if err := h.api.Get(ctx, client.ObjectKey{Name: node}, n); err != nil {
		return fmt.Errorf("read Node %s: %w", node, err)
	}
	for i := range n.Status.Conditions {
		if c := &n.Status.Conditions[i]; c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, "KubeletReady", ""
			c.LastHeartbeatTime, c.LastTransitionTime = metav1.Now(), metav1.Now()
			if err := h.api.Status().Update(ctx, n); err != nil {
				return fmt.Errorf("say that node %s is ready: %w", node, err)
			}
		}
	}
	return nil
}
