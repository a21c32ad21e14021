// Standin is what a real cluster would have of other people's, as far as the end-to-end test asks it: a server of a node that
// says the node's name, a validating webhook, and a metrics API behind the API server's aggregation layer. It measures nothing.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	name        = flag.String("name", "", "what it answers with")
	plain       = flag.String("http", "", "ports for HTTP, separated by commas")
	encrypted   = flag.String("https", "", "ports for HTTPS, separated by commas")
	certificate = flag.String("tls", "/tls", "folder with tls.crt and tls.key, for HTTPS, and with ca.crt, whose clients may use the metrics API")
	nodes       = flag.String("nodes", "", "nodes of which the metrics API tells, separated by commas")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx); err != nil {
		log.Fatal(err)
	}
}

// serve serves on all ports until ctx is done or one of them fails.
func serve(ctx context.Context) error {
	mux := http.NewServeMux()
	for _, path := range []string{"/{$}", "/healthz", "/metrics"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, *name) })
	}
	mux.HandleFunc("POST /validate", validate)
	mux.HandleFunc("GET /apis/metrics.k8s.io/v1beta1", aggregated(resources))
	mux.HandleFunc("GET /apis/metrics.k8s.io/v1beta1/nodes", aggregated(nodeMetrics))
	group, ctx := errgroup.WithContext(ctx)
	listen := func(port string, run func(*http.Server) error, config *tls.Config) {
		if port == "" {
			return
		}
		server := &http.Server{Addr: ":" + port, Handler: mux, TLSConfig: config}
		stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // Serve's error says how it ended
		group.Go(func() error {
			defer stop()
			if err := run(server); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	for port := range strings.SplitSeq(*plain, ",") {
		listen(port, (*http.Server).ListenAndServe, nil)
	}
	config := &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: x509.NewCertPool()}
	if *encrypted != "" {
		authority, err := os.ReadFile(*certificate + "/ca.crt")
		if err != nil {
			return err
		}
		config.ClientCAs.AppendCertsFromPEM(authority)
	}
	for port := range strings.SplitSeq(*encrypted, ",") {
		listen(port, func(s *http.Server) error {
			return s.ListenAndServeTLS(*certificate+"/tls.crt", *certificate+"/tls.key")
		}, config)
	}
	return group.Wait()
}

// validate refuses objects whose annotation "wanted" is not "true".
func validate(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	var object metav1.PartialObjectMetadata
	err := json.NewDecoder(r.Body).Decode(&review)
	if err == nil && review.Request == nil {
		err = errors.New("a review without a request")
	}
	if err == nil {
		err = json.Unmarshal(review.Request.Object.Raw, &object)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: object.Annotations["wanted"] == "true"}
	if !review.Response.Allowed {
		review.Response.Result = &metav1.Status{Message: "refused by the webhook of " + *name}
	}
	review.Request = nil
	answer(w, review)
}

// aggregated lets in the API server alone, which says so by a certificate.
func aggregated(content func() any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || r.TLS.PeerCertificates[0].Subject.CommonName != "front-proxy" {
			http.Error(w, "this is for the API server's aggregation layer alone", http.StatusUnauthorized)
			return
		}
		answer(w, content())
	}
}

type object map[string]any

func resources() any {
	return metav1.APIResourceList{
		TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
		GroupVersion: "metrics.k8s.io/v1beta1",
		APIResources: []metav1.APIResource{{Name: "nodes", Kind: "NodeMetrics", Verbs: metav1.Verbs{"get", "list"}}},
	}
}

// nodeMetrics gives the first node 101 thousandths of a core, the second 102, and so on.
func nodeMetrics() any {
	items := []object{}
	for i, node := range strings.Split(*nodes, ",") {
		items = append(items, object{
			"metadata": object{"name": node}, "timestamp": metav1.Now(), "window": "30s",
			"usage": object{"cpu": fmt.Sprintf("%dm", 101+i), "memory": "64Mi"},
		})
	}
	return object{"kind": "NodeMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": object{}, "items": items}
}

func answer(w http.ResponseWriter, content any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(content) // the client may have gone
}
