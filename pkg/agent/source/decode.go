package source

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/ravencni/raven/pkg/apis/raven/v1beta1"
	"github.com/ravencni/raven/pkg/topology"
)

// decoded is what one file holds.
type decoded struct {
	objects  objects
	problems []topology.Problem
	// broken is true where a document could not be read: what it held is not known.
	broken bool
}

// decode reads a file of YAML documents or of JSON values. A bad document costs only itself.
func decode(file string, content []byte) decoded {
	d := &decoder{file: file, decoded: decoded{objects: newObjects()}}
	if len(bytes.TrimSpace(content)) == 0 {
		// More likely cut off by an interrupted write than meant.
		d.fail("the whole file", errors.New("it is empty; delete it to remove its objects"))
		return d.decoded
	}
	documents, err := split(content)
	for i, doc := range documents {
		d.document(fmt.Sprintf("document %d", i+1), doc)
	}
	if err != nil {
		d.fail(fmt.Sprintf("document %d", len(documents)+1), err)
	}
	return d.decoded
}

type decoder struct {
	file string
	decoded
}

func (d *decoder) complain(object, reason, format string, args ...any) {
	d.problems = append(d.problems, topology.Problem{Object: object, Reason: reason, Message: fmt.Sprintf(format, args...)})
}

func (d *decoder) fail(where string, err error) {
	d.broken = true
	d.complain("File/"+d.file, ReasonNotParsed, "%s: %v; its last good objects stay until it is repaired", where, err)
}

// split cuts a file into documents in JSON. Where the file as a whole cannot be cut it returns what came before, and
// an error; a document that is no YAML is returned as it is and fails when it is decoded.
func split(content []byte) ([][]byte, error) {
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	if trimmed := bytes.TrimSpace(content); len(trimmed) > 0 && trimmed[0] == '{' {
		// JSON may be indented by tabs, which YAML refuses. What is no JSON from its start on is a YAML flow mapping.
		if documents, err := splitJSON(trimmed); len(documents) > 0 {
			return documents, err
		}
	}
	var documents [][]byte
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return documents, err
		}
		documents = append(documents, doc)
	}
}

func splitJSON(content []byte) (documents [][]byte, err error) {
	dec := json.NewDecoder(bytes.NewReader(content))
	for {
		var raw json.RawMessage
		if err := dec.Decode(&raw); errors.Is(err, io.EOF) {
			return documents, nil
		} else if err != nil {
			return documents, fmt.Errorf("not JSON: %w", err)
		}
		documents = append(documents, raw)
	}
}

func (d *decoder) document(where string, doc []byte) {
	raw, err := yaml.YAMLToJSON(doc)
	if err != nil {
		d.fail(where, err)
		return
	}
	if string(raw) == "null" {
		return // only comments
	}
	d.object(where, raw)
}

// head is what tells one object from another.
type head struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Items []json.RawMessage `json:"items"`
}

const group = "raven.openyurt.io"

func (d *decoder) object(where string, raw []byte) {
	var h head
	if err := json.Unmarshal(raw, &h); err != nil {
		d.fail(where, fmt.Errorf("not a Kubernetes object: %w", err))
		return
	}
	if h.Kind == "" || h.APIVersion == "" {
		d.fail(where, errors.New("no kind or no apiVersion"))
		return
	}
	apiGroup, version := "", h.APIVersion
	if g, v, ok := strings.Cut(h.APIVersion, "/"); ok {
		apiGroup, version = g, v
	}
	isRaven := apiGroup == group && (version == "v1beta1" || version == "v1alpha1")
	isCore := apiGroup == "" && version == "v1"

	if strings.HasSuffix(h.Kind, "List") && (isRaven || isCore) {
		for i, item := range h.Items {
			d.object(fmt.Sprintf("%s, item %d", where, i+1), withKind(item, h))
		}
		return
	}
	if h.Metadata.Name == "" {
		d.fail(where, fmt.Errorf("%s without metadata.name", h.Kind))
		return
	}
	name := h.Kind + "/" + h.Metadata.Name
	switch {
	case isRaven && h.Kind == "Gateway":
		read(d, where, name, raw, d.objects.gateways, trimGateway)
	case isRaven && h.Kind == "TunnelEndpoint":
		read(d, where, name, raw, d.objects.endpoints, trimEndpoint)
	case isCore && h.Kind == "Node":
		read(d, where, name, raw, d.objects.nodes, trimNode)
	case isCore && h.Kind == "ConfigMap" && isOurConfig(h.Metadata.Namespace, h.Metadata.Name):
		read(d, where, name, raw, d.objects.configs, trimConfig)
	default:
		d.complain(name, ReasonUnknownKind, "%s of file %s: %s %s is not read by the agent, which knows Gateway, "+
			"TunnelEndpoint, Node and the ConfigMaps kube-system/raven-cfg and kube-system/raven-agent-config",
			where, d.file, h.APIVersion, h.Kind)
	}
}

// withKind gives an item of a typed list, such as a GatewayList, the kind that it may leave out.
func withKind(item json.RawMessage, list head) []byte {
	var fields map[string]json.RawMessage
	if json.Unmarshal(item, &fields) != nil || fields["kind"] != nil || list.Kind == "List" {
		return item
	}
	kind, err := json.Marshal(strings.TrimSuffix(list.Kind, "List"))
	if err != nil {
		return item
	}
	version, err := json.Marshal(list.APIVersion)
	if err != nil {
		return item
	}
	fields = maps.Clone(fields)
	fields["kind"], fields["apiVersion"] = kind, version
	if whole, err := json.Marshal(fields); err == nil {
		return whole
	}
	return item
}

func isOurConfig(namespace, name string) bool {
	return (namespace == configNamespace || namespace == "") && (name == switchesName || name == settingsName)
}

// named is a pointer to an object of type T.
type named[T any] interface {
	*T
	metav1.Object
}

// read decodes one object as the API server would: names in their exact case, unknown fields left out, but named.
func read[T, V any, P named[T]](d *decoder, where, name string, raw []byte, into map[string]V, trim func(P) V) {
	obj := P(new(T))
	unknown, err := kjson.UnmarshalStrict(raw, obj)
	if err != nil {
		d.fail(where, fmt.Errorf("%s: %w", name, err))
		return
	}
	if _, twice := into[obj.GetName()]; twice {
		d.complain(name, ReasonDuplicate, "%s of file %s repeats it; the first one counts", where, d.file)
		return
	}
	// A Node or ConfigMap of a newer Kubernetes may well have fields that this build does not know.
	if _, gateway := any(obj).(*v1beta1.Gateway); gateway && len(unknown) > 0 {
		d.complain(name, ReasonUnknownField, "file %s: %v: left out; check spelling and case", d.file, errors.Join(unknown...))
	}
	into[obj.GetName()] = trim(obj)
}
