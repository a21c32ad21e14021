package v1beta1_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apimachinery/pkg/util/version"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

var crdNames = []string{"gateways", "tunnelendpoints"}

// This includes that every CEL rule compiles and that the estimated cost of each, and of all, is within the limits.
func TestAnAPIServerAcceptsTheCRDs(t *testing.T) {
	for _, name := range crdNames {
		crd := readCRD(t, name)
		apiextensionsv1.SetDefaults_CustomResourceDefinition(crd)
		apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&crd.Spec)
		for _, v := range crd.Spec.Versions {
			if v.Storage {
				crd.Status.StoredVersions = []string{v.Name}
			}
		}
		internal := new(apiextensions.CustomResourceDefinition)
		if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(
			crd, internal, nil); err != nil {
			t.Fatalf("convert the CRD %s: %v", name, err)
		}
		for _, err := range crdvalidation.ValidateCustomResourceDefinition(t.Context(), internal) {
			t.Errorf("CRD %s: %v", name, err)
		}
	}
}

func TestUsersFindTheKindsByTheirShortNames(t *testing.T) {
	for name, want := range map[string]string{"gateways": "gw", "tunnelendpoints": "te"} {
		crd := readCRD(t, name)
		if diff := cmp.Diff([]string{want}, crd.Spec.Names.ShortNames); diff != "" {
			t.Errorf("short names of %s (-want +got):\n%s", name, diff)
		}
		if crd.Spec.Scope != apiextensionsv1.ClusterScoped {
			t.Errorf("%s is %s, want cluster-scoped", name, crd.Spec.Scope)
		}
		for _, v := range crd.Spec.Versions {
			if v.Subresources == nil || v.Subresources.Status == nil {
				t.Errorf("%s %s has no status subresource: a user of spec could write status", name, v.Name)
			}
			if v.Storage != (v.Name == "v1beta1") {
				t.Errorf("%s %s: storage is %t, v1beta1 is the storage version", name, v.Name, v.Storage)
			}
		}
	}
}

// With one schema for both versions no conversion is needed: whatever is written through one can be read through the
// other. Only the description of the root differs.
func TestBothVersionsOfGatewayHaveOneSchema(t *testing.T) {
	crd := readCRD(t, "gateways")
	if c := crd.Spec.Conversion; c == nil || c.Strategy != apiextensionsv1.NoneConverter || c.Webhook != nil {
		t.Errorf("conversion is %+v, want strategy None, and that it says so: the schemas are equal", c)
	}
	if len(crd.Spec.Versions) != 2 {
		t.Fatalf("gateways has %d versions, want v1alpha1 and v1beta1", len(crd.Spec.Versions))
	}
	older, newer := crd.Spec.Versions[0], crd.Spec.Versions[1]
	older.Schema.OpenAPIV3Schema.Description = newer.Schema.OpenAPIV3Schema.Description
	if diff := cmp.Diff(newer.Schema, older.Schema); diff != "" {
		t.Errorf("the schemas differ (-%s +%s):\n%s", newer.Name, older.Name, diff)
	}
	if diff := cmp.Diff(newer.AdditionalPrinterColumns, older.AdditionalPrinterColumns); diff != "" {
		t.Errorf("the printer columns differ (-%s +%s):\n%s", newer.Name, older.Name, diff)
	}
}

// An API server lets new rules use only what its previous minor release knew too, so 1.30, the oldest that Raven
// supports, offers what CEL had in 1.29. isIP, for one, came in 1.30.
func TestTheOldestSupportedAPIServerKnowsEveryFunctionInTheRules(t *testing.T) {
	offered := environment.MustBaseEnvSet(version.MajorMinor(1, 29))
	rules := 0
	for _, name := range crdNames {
		for _, v := range readCRD(t, name).Spec.Versions {
			s := newAPIServer(t, name, v.Name)
			eachSchema(s.structural, name+" "+v.Name, func(at string, node *structuralschema.Structural) {
				if len(node.XValidations) == 0 {
					return
				}
				results, err := cel.Compile(node, model.SchemaDeclType(node, false), celconfig.PerCallLimit, offered,
					cel.NewExpressionsEnvLoader())
				if err != nil {
					t.Fatalf("compile the rules of %s: %v", at, err)
				}
				for i, r := range results {
					rules++
					if r.Error != nil {
						t.Errorf("%s: an API server of 1.30 refuses rule %q: %s", at, node.XValidations[i].Rule, r.Error.Detail)
					}
				}
			})
		}
	}
	if rules == 0 {
		t.Error("no rule was compiled")
	}
}

func eachSchema(s *structuralschema.Structural, at string, visit func(at string, s *structuralschema.Structural)) {
	visit(at, s)
	for name, property := range s.Properties {
		eachSchema(&property, at+"."+name, visit)
	}
	if s.Items != nil {
		eachSchema(s.Items, at+"[]", visit)
	}
}

func TestEveryRuleHasAMessageThatDoesNotQuoteTheRule(t *testing.T) {
	for _, name := range crdNames {
		for _, v := range readCRD(t, name).Spec.Versions {
			s := newAPIServer(t, name, v.Name)
			eachSchema(s.structural, name+" "+v.Name, func(at string, node *structuralschema.Structural) {
				for _, r := range node.XValidations {
					if r.Message == "" || strings.Contains(r.Message, "self") {
						t.Errorf("%s: rule %q has message %q, want one for users", at, r.Rule, r.Message)
					}
				}
			})
		}
	}
}
