package source

import (
	"fmt"
	"slices"
	"testing"
)

// tutorial is the user's own manifest: versions mixed, a key repeated in one endpoint, fields of v1beta1 under v1alpha1.
const tutorial = `apiVersion: raven.openyurt.io/v1beta1
kind: Gateway
metadata:
  name: gw-hangzhou
spec:
  proxyConfig:
    Replicas: 1
  tunnelConfig:
    Replicas: 1
  endpoints:
    - nodeName: izbp15inok0kbfkg3in52rz
      underNAT: true
      port: 10262
      type: proxy
    - nodeName: izbp15inok0kbfkg3in52rz
      underNAT: true
      port: 4500
      underNAT: true
      type: tunnel
---
apiVersion: raven.openyurt.io/v1alpha1
kind: Gateway
metadata:
  name: gw-cloud
spec:
  exposeType: PublicIP
  proxyConfig:
    Replicas: 1
    proxyHTTPPort: 10255,9445
    proxyHTTPSPort: 10250,9100
  tunnelConfig:
    Replicas: 1
  endpoints:
    - nodeName: izwz9dohcv74iegqecp4axz
      underNAT: false
      port: 10262
      type: proxy
      publicIP: 192.0.2.1
    - nodeName: izwz9dohcv74iegqecp4axz
      underNAT: false
      port: 4500
      type: tunnel
      publicIP: 192.0.2.1

---
apiVersion: raven.openyurt.io/v1alpha1
kind: Gateway
metadata:
  name: gw-qingdao
spec:
  endpoints:
  - nodeName: izm5eb24dmjfimuaybpnqzz
    underNAT: true
    port: 10262
    type: proxy
  - nodeName: izm5eb24dmjfimuaybpnr0z
    underNAT: true
    port: 4500
    type: tunnel
`

func TestTheTutorialsManifestIsReadAsItStands(t *testing.T) {
	d := decode("tutorial.yaml", []byte(tutorial))
	if len(d.problems) > 0 || d.broken {
		t.Fatalf("problems: %v", d.problems)
	}
	hangzhou := d.objects.gateways["gw-hangzhou"]
	cloud := d.objects.gateways["gw-cloud"]
	if len(d.objects.gateways) != 3 || hangzhou == nil || cloud == nil {
		t.Fatalf("read the gateways %v", d.objects.gateways)
	}
	if e := hangzhou.Spec.Endpoints[1]; !e.UnderNAT || e.Port != 4500 || e.Type != "tunnel" {
		t.Errorf("the endpoint with the repeated key is %+v", e)
	}
	if cloud.Spec.ExposeType != "PublicIP" || *cloud.Spec.ProxyConfig.Replicas != 1 || cloud.Spec.Endpoints[1].PublicIP != "192.0.2.1" {
		t.Errorf("gw-cloud is %+v", cloud.Spec)
	}
}

func TestEveryWayToWriteObjectsIsRead(t *testing.T) {
	for _, c := range []struct{ name, content, gateways, nodes string }{
		{"JSON with tabs", "{\n\t\"apiVersion\": \"raven.openyurt.io/v1beta1\",\n\t\"kind\": \"Gateway\",\n\t\"metadata\": {\"name\": \"a\"}\n}\n", "[a]", "[]"},
		{"several JSON values", `{"apiVersion":"v1","kind":"Node","metadata":{"name":"x"}} {"apiVersion":"v1","kind":"Node","metadata":{"name":"z"}}`, "[]", "[x z]"},
		{"a YAML flow mapping", "{apiVersion: v1, kind: Node, metadata: {name: x}}", "[]", "[x]"},
		{"a List, as kubectl get prints it", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Node, metadata: {name: x}}\n" +
			"- {apiVersion: raven.openyurt.io/v1alpha1, kind: Gateway, metadata: {name: a}}\n", "[a]", "[x]"},
		{"a typed list, whose items need no kind", "apiVersion: raven.openyurt.io/v1beta1\nkind: GatewayList\nitems:\n- metadata: {name: a}\n- metadata: {name: b}\n", "[a b]", "[]"},
		{"comments and empty documents", "# nothing\n---\n---\n# still\napiVersion: v1\nkind: Node\nmetadata: {name: x}\n---\n", "[]", "[x]"},
		{"a byte order mark and Windows line ends", "\xef\xbb\xbfapiVersion: v1\r\nkind: Node\r\nmetadata:\r\n  name: x\r\n---\r\napiVersion: v1\r\nkind: Node\r\nmetadata:\r\n  name: z\r\n", "[]", "[x z]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := decode("f", []byte(c.content))
			if len(d.problems) > 0 || d.broken {
				t.Errorf("problems: %v", d.problems)
			}
			if got := fmt.Sprint(names(d.objects.gateways)); got != c.gateways {
				t.Errorf("gateways %s, want %s", got, c.gateways)
			}
			if got := fmt.Sprint(names(d.objects.nodes)); got != c.nodes {
				t.Errorf("nodes %s, want %s", got, c.nodes)
			}
		})
	}
}

func names[T any](m map[string]T) []string {
	out := []string{}
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func TestADocumentThatIsNoObjectIsNamed(t *testing.T) {
	good := "\n---\napiVersion: v1\nkind: Node\nmetadata: {name: good}\n"
	for _, c := range []struct{ name, content string }{
		{"not YAML", "a: [b"},
		{"a tab for indentation", "a:\n\tb: c"},
		{"a scalar", "hello"},
		{"a list", "- a\n- b"},
		{"no kind", "metadata: {name: x}"},
		{"no name", "apiVersion: v1\nkind: Node\nmetadata: {labels: {}}"},
		{"binary", "\x00\x01\x02\xff"},
		{"deep nesting", fmt.Sprintf("%s1%s", repeat("[", 20000), repeat("]", 20000))},
		{"aliases that multiply", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
			"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := decode("f", []byte(c.content+good))
			if !d.broken || len(d.problems) != 1 || d.problems[0].Object != "File/f" || d.problems[0].Reason != ReasonNotParsed {
				t.Errorf("broken %t, problems %v", d.broken, d.problems)
			}
			if got := fmt.Sprint(names(d.objects.nodes)); got != "[good]" {
				t.Errorf("the good document beside it gave the nodes %s", got)
			}
		})
	}
}

func repeat(s string, n int) string {
	out := make([]byte, 0, n)
	for range n {
		out = append(out, s...)
	}
	return string(out)
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(tutorial))
	f.Add([]byte(oneOfEach))
	f.Add([]byte(`{"kind":"List","apiVersion":"v1","items":[{"kind":"Node"}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		d := decode("f", content)
		for name, g := range d.objects.gateways {
			if g == nil || g.Name != name {
				t.Errorf("gateway %q is %v", name, g)
			}
		}
		if d.broken && len(d.problems) == 0 {
			t.Error("broken, but no problem is named")
		}
	})
}
