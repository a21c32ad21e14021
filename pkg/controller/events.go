package controller

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/election"
)

// Reasons of events on Gateways.
const (
	EventElected = "ActiveEndpointElected"
	EventLost    = "ActiveEndpointLost"
)

// recorder writes events. The usual recorders fold events with one reason into a series that keeps the first one's
// words; a change of roles deserves its own.
type recorder struct {
	client   client.Client
	instance string
	now      func() time.Time
	log      *slog.Logger
}

func newRecorder(c client.Client, log *slog.Logger) *recorder {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return &recorder{client: c, instance: fmt.Sprintf("%.100s-%d", host, os.Getpid()), now: time.Now, log: log}
}

// roles tells of one change of the active endpoints of a type, if there was one.
func (r *recorder) roles(ctx context.Context, gw *v1beta1.Gateway, kind v1beta1.EndpointType, before []string, d election.Decision) {
	if !d.Changed {
		return
	}
	event, reason, note := roleChange(kind, before, d)
	elections.WithLabelValues(string(kind)).Inc()
	r.log.Info(note, "gateway", gw.Name, "type", kind, "before", before, "after", d.Active)
	r.write(ctx, corev1.ObjectReference{APIVersion: v1beta1.GroupVersion.String(), Kind: "Gateway", Name: gw.Name, UID: gw.UID,
		ResourceVersion: gw.ResourceVersion}, event, "Elect", reason, note)
}

// ofNode tells something about a Node.
func (r *recorder) ofNode(ctx context.Context, node *corev1.Node, kind, action, reason, note string) {
	r.write(ctx, corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}, kind, action, reason, note)
}

// longestNote is what the API takes, in bytes.
const longestNote = 1024

func (r *recorder) write(ctx context.Context, regarding corev1.ObjectReference, kind, action, reason, note string) {
	e := &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{GenerateName: regarding.Name + "-", Namespace: metav1.NamespaceDefault},
		EventTime:           metav1.NewMicroTime(r.now()),
		ReportingController: Name, ReportingInstance: r.instance,
		Action: action, Type: kind, Reason: reason, Note: strings.ToValidUTF8(note[:min(len(note), longestNote)], ""), Regarding: regarding,
	}
	// What it is about has happened: it is told even if the controller is ending.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := r.client.Create(ctx, e); err != nil {
		r.log.Warn("an event could not be written", "kind", regarding.Kind, "name", regarding.Name, "note", note, "error", err)
	}
}
