package v1beta1_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	structuraldefaulting "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	structuralpruning "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

// crdFolder holds the generated CRDs that users apply.
const crdFolder = "../../../../manifests/crds"

// apiServer does to an object of one kind and version what an API server does when the object is created: prune,
// default, validate. It is made of the API server's own packages.
type apiServer struct {
	crd        *apiextensionsv1.CustomResourceDefinition
	version    *apiextensionsv1.CustomResourceDefinitionVersion
	structural *structuralschema.Structural
	schema     validation.SchemaValidator
	rules      *cel.Validator
}

func readCRD(t *testing.T, name string) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(crdFolder, "raven.openyurt.io_"+name+".yaml"))
	if err != nil {
		t.Fatalf("read the generated CRD (make generate writes it): %v", err)
	}
	crd := new(apiextensionsv1.CustomResourceDefinition)
	if err := yaml.UnmarshalStrict(data, crd); err != nil {
		t.Fatalf("decode the generated CRD %s: %v", name, err)
	}
	return crd
}

func newAPIServer(t *testing.T, crdName, version string) *apiServer {
	t.Helper()
	s := &apiServer{crd: readCRD(t, crdName)}
	for i := range s.crd.Spec.Versions {
		if s.crd.Spec.Versions[i].Name == version {
			s.version = &s.crd.Spec.Versions[i]
		}
	}
	if s.version == nil || !s.version.Served {
		t.Fatalf("CRD %s does not serve version %s", crdName, version)
	}
	internal := new(apiextensions.JSONSchemaProps)
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(
		s.version.Schema.OpenAPIV3Schema, internal, nil); err != nil {
		t.Fatalf("convert the schema of %s %s: %v", crdName, version, err)
	}
	var err error
	if s.structural, err = structuralschema.NewStructural(internal); err != nil {
		t.Fatalf("the schema of %s %s is not structural: %v", crdName, version, err)
	}
	if s.schema, _, err = validation.NewSchemaValidator(internal); err != nil {
		t.Fatalf("make a validator for %s %s: %v", crdName, version, err)
	}
	s.rules = cel.NewValidator(s.structural, true, celconfig.PerCallLimit)
	return s
}

// admit prunes, defaults and validates the object in place and returns all errors.
func (s *apiServer) admit(t *testing.T, object map[string]any) field.ErrorList {
	t.Helper()
	structuralpruning.Prune(object, s.structural, true)
	structuraldefaulting.Default(object, s.structural)
	errs := validation.ValidateCustomResource(nil, object, s.schema)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, s.structural, object)...)
	if s.rules != nil {
		broken, budget := s.rules.Validate(t.Context(), nil, s.structural, object, nil, celconfig.RuntimeCELCostBudget)
		errs = append(errs, broken...)
		if budget < 0 {
			t.Errorf("validating the object costs more than an API server allows")
		}
	}
	return errs
}

// decodeAll decodes the documents of a YAML file as kubectl does: a key that is given twice counts once.
func decodeAll(t *testing.T, data []byte) []map[string]any {
	t.Helper()
	var objects []map[string]any
	for _, document := range bytes.Split(data, []byte("\n---\n")) {
		asJSON, err := yaml.YAMLToJSON(document)
		if err != nil {
			t.Fatalf("decode YAML: %v\n%s", err, document)
		}
		object := map[string]any{}
		if err := json.Unmarshal(asJSON, &object); err != nil { // keeps integers, as the API server does
			t.Fatalf("decode JSON: %v\n%s", err, asJSON)
		}
		objects = append(objects, object)
	}
	return objects
}

func errorText(errs field.ErrorList) string {
	texts := make([]string, 0, len(errs))
	for _, err := range errs {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "\n")
}
