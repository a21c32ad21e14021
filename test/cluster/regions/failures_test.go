package regions_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/election"
	"github.com/ravencni/raven/test/lab"
)

// silence drops all that a host receives, sends and forwards; speech ends it.
const (
	silence = `table inet silence {
		chain in { type filter hook prerouting priority -500; policy drop; iifname lo accept; }
		chain out { type filter hook output priority -500; policy drop; oifname lo accept; }
	}`
	speech = `delete table inet silence`
)

// partition drops what a region's box would forward to an API server; reunion ends it.
const (
	partition = `table inet partition {
		chain forward { type filter hook forward priority -500; tcp dport 6443 drop; }
	}`
	reunion = `delete table inet partition`
)

// roleMoves ends the agent and the heartbeat of an elected node, then the node itself.
func roleMoves(w *world) {
	w.awaitRole("gw-hangzhou", "hangzhou-1")
	oldKey, newKey := w.key("hangzhou-1"), w.key("hangzhou-2")
	probes := w.probes([2]string{"hangzhou-2/a", "cloud-2/a"}, [2]string{"qingdao-2/a", "hangzhou-2/a"})

	begin := time.Now()
	w.hearts.set(false, "hangzhou-1")
	w.must(w.lab.Agent("hangzhou-1").Stop())
	w.awaitRole("gw-hangzhou", "hangzhou-2")
	moved := time.Since(begin)
	w.await(patience, "hangzhou-2 as the hub's peer, and hangzhou-1 no longer", func(ctx context.Context) error {
		peers, err := w.peers(ctx, "cloud-1")
		if err != nil {
			return err
		}
		if !slices.Contains(peers, newKey) || slices.Contains(peers, oldKey) {
			return fmt.Errorf("the hub's peers are %v; hangzhou-1 is %s, hangzhou-2 %s", peers, oldKey, newKey)
		}
		return nil
	})
	// From here on nothing can come or go by the old one.
	w.must(w.lab.Host("hangzhou-1").NFT(w.Context(), silence))
	w.answered(probes, 20, patience)
	_, account := w.finish(probes)
	w.Logf("the role moved %.1f s after the last heartbeat, of which the node lifecycle controller waits %s: %s", moved.Seconds(), grace, account)

	// It comes back as what it is not asked to be.
	w.must(w.lab.Host("hangzhou-1").NFT(w.Context(), speech))
	w.hearts.set(true, "hangzhou-1")
	w.startAgent("hangzhou-1")
	w.awaitReason("gw-hangzhou", election.ConditionReady, election.ReasonReady)
	w.talk([2]string{"hangzhou-1/a", "qingdao-1/a"})
	w.awaitRole("gw-hangzhou", "hangzhou-2")
}

// nodeIsDeleted deletes the Node of an elected node whose agent goes on.
func nodeIsDeleted(w *world) {
	const node = "hangzhou-2"
	key := w.key(node)
	if holders, err := w.holders(w.Context(), key); err != nil || !slices.Contains(holders, "cloud-1") {
		w.Fatalf("the key of %s is with %v (%v), want the hub among them", node, holders, err)
	}
	w.hearts.set(false, node)
	begin := time.Now()
	w.must(w.api.Delete(w.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}))
	gone := func(ctx context.Context) error {
		holders, err := w.holders(ctx, key)
		if err != nil {
			return err
		}
		if len(holders) > 0 {
			return fmt.Errorf("the key is still with %v", holders)
		}
		if err := w.api.Get(ctx, client.ObjectKey{Name: node}, &v1beta1.TunnelEndpoint{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("TunnelEndpoint %s is still there (%v)", node, err)
		}
		return nil
	}
	w.await(10*time.Second, "the deleted node's key to be gone from every peer", gone)
	w.Logf("the key was gone from every peer after %.1f s", time.Since(begin).Seconds())
	w.awaitRole("gw-hangzhou", "hangzhou-1")
	w.talk([2]string{"hangzhou-1/a", "qingdao-2/a"}, [2]string{"cloud-2/a", "hangzhou-1/a"})
	// Its agent still runs, and does not bring the key back.
	w.await(patience, "the deleted node's key to stay away", gone)
}

// regionIsCutOff takes a region's way to the API server, and nothing else.
func regionIsCutOff(w *world) {
	before := w.words()
	probes := w.probes([2]string{"qingdao-2/a", "cloud-2/a"}, [2]string{"hangzhou-1/a", "qingdao-2/a"})
	box := w.lab.Host(lab.Box("qingdao"))
	w.must(box.NFT(w.Context(), partition))
	w.hearts.set(false, "qingdao-1", "qingdao-2")
	w.awaitReason("gw-qingdao", election.ConditionTunnelElected, election.ReasonNoCandidateReady)
	w.await(rolePatience, "every node of the region NotReady", func(ctx context.Context) error {
		for _, node := range []string{"qingdao-1", "qingdao-2"} {
			if w.ready(ctx, node) {
				return fmt.Errorf("node %s is ready", node)
			}
		}
		return nil
	})
	w.answered(probes, 50, patience)
	if diff := cmp.Diff(before, w.words()); diff != "" {
		w.Errorf("who is active and member (-before +after):\n%s", diff)
	}
	w.must(box.NFT(w.Context(), reunion))
	w.hearts.set(true, "qingdao-1", "qingdao-2")
	w.awaitReason("gw-qingdao", election.ConditionReady, election.ReasonReady)
	lost, account := w.finish(probes)
	if lost > 0 {
		w.Errorf("%d packets were lost: %s", lost, account)
	}
	w.Log(account)
}
