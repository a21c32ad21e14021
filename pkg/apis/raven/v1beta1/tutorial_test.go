package v1beta1_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/ravencni/raven/pkg/apis/raven/v1alpha1"
	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
)

func readTutorial(t *testing.T) []map[string]any {
	t.Helper()
	data, err := os.ReadFile("testdata/tutorial.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects := decodeAll(t, data)
	if len(objects) != 3 {
		t.Fatalf("the tutorial has %d gateways, want 3", len(objects))
	}
	return objects
}

func TestTheTutorialsManifestsApplyUnderEitherVersionAndLoseNothing(t *testing.T) {
	for _, version := range []string{"v1alpha1", "v1beta1"} {
		server := newAPIServer(t, "gateways", version)
		for _, object := range readTutorial(t) {
			object["apiVersion"] = "raven.openyurt.io/" + version
			written := runtime.DeepCopyJSON(object)
			if errs := server.admit(t, object); len(errs) > 0 {
				t.Errorf("%v is refused:\n%s", object["metadata"], errorText(errs))
			}
			if diff := cmp.Diff(written, object); diff != "" {
				t.Errorf("%s of %v is not what the user wrote (-written +stored):\n%s", version, object["metadata"], diff)
			}
		}
	}
}

func TestTheTutorialsManifestsRoundTripThroughTheGoTypes(t *testing.T) {
	for _, object := range readTutorial(t) {
		data, err := yaml.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		var older v1alpha1.Gateway
		var newer v1beta1.Gateway
		for _, into := range []any{&older, &newer} {
			if err := yaml.UnmarshalStrict(data, into); err != nil {
				t.Fatalf("decode %v as %T: %v", object["metadata"], into, err)
			}
		}
		if diff := cmp.Diff(newer.Spec, older.Spec); diff != "" {
			t.Errorf("the versions read different specs (-v1beta1 +v1alpha1):\n%s", diff)
		}
		encoded, err := json.Marshal(newer)
		if err != nil {
			t.Fatal(err)
		}
		var again v1beta1.Gateway
		if err := json.Unmarshal(encoded, &again); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(newer, again); diff != "" {
			t.Errorf("a round trip changes the object (-before +after):\n%s", diff)
		}
		if got := *newer.Spec.ProxyConfig.Replicas; got != 1 {
			t.Errorf("Replicas, with a capital R, reads as %d, want 1", got)
		}
	}
}
