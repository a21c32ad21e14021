package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/containernetworking/cni/pkg/version"
)

// Type is the plugin's name in a network configuration, and that of its binary.
const Type = "raven-cni"

// ours is the plugin's configuration.
const ours = `{ "type": "` + Type + `" }`

// chain is a network configuration list as it stands in a file. It is changed as text, so that nothing of others'
// changes, be it a key that nobody knows or a space.
type chain struct {
	text          []byte
	name, version string
	plugins       []element
	// first is the offset behind the bracket that opens the list of plugins.
	first int
	// inlinedOnly is true where plugins in the network's own folder are not to be loaded.
	inlinedOnly bool
}

// element is a plugin's configuration: text[start:end].
type element struct {
	start, end int
	kind       string
}

// parseList reads a list (.conflist). The error says why a runtime would not take it either.
func parseList(text []byte) (*chain, error) {
	c := &chain{text: text}
	listed := false
	err := members(text, func(key string, in *json.Decoder) error {
		switch key {
		case "name":
			return in.Decode(&c.name)
		case "cniVersion":
			return in.Decode(&c.version)
		case "loadOnlyInlinedPlugins":
			var v any
			err := in.Decode(&v)
			c.inlinedOnly = v == true || v == "true"
			return err
		case "plugins":
			if listed {
				return errors.New("it has two lists of plugins")
			}
			listed = true
			return c.elements(in)
		}
		return in.Decode(new(json.RawMessage))
	})
	switch {
	case err != nil:
		return nil, err
	case c.name == "":
		return nil, errors.New("it has no name")
	case len(c.plugins) == 0:
		return nil, errors.New("it has no plugins")
	}
	return c, nil
}

// members walks a JSON object, which is all that text holds.
func members(text []byte, each func(key string, in *json.Decoder) error) error {
	in := json.NewDecoder(bytes.NewReader(text))
	if t, err := in.Token(); err != nil || t != json.Delim('{') {
		return errors.Join(errors.New("it is no JSON object"), err)
	}
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return err
		}
		if err := each(fmt.Sprint(key), in); err != nil {
			return err
		}
	}
	if _, err := in.Token(); err != nil {
		return fmt.Errorf("it is cut short: %w", err)
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows its end")
	}
	return nil
}

func (c *chain) elements(in *json.Decoder) error {
	if t, err := in.Token(); err != nil || t != json.Delim('[') {
		return errors.Join(errors.New("its plugins are no list"), err)
	}
	c.first = int(in.InputOffset())
	for in.More() {
		var raw json.RawMessage
		if err := in.Decode(&raw); err != nil {
			return err
		}
		var plugin struct {
			Type string `json:"type"`
		}
		if err := json.Unmarshal(raw, &plugin); err != nil || plugin.Type == "" {
			return errors.Join(errors.New("a plugin has no type"), err)
		}
		end := int(in.InputOffset())
		c.plugins = append(c.plugins, element{end - len(raw), end, plugin.Type})
	}
	_, err := in.Token()
	return err
}

// has says whether our plugin is in the list.
func (c *chain) has() bool {
	return slices.ContainsFunc(c.plugins, func(e element) bool { return e.kind == Type })
}

// takes says why the plugin must not be put into this list; empty: it may.
func (c *chain) takes() string {
	if c.version == "" {
		return ""
	}
	if newer, err := version.GreaterThan(c.version, version.Current()); err != nil || newer {
		return fmt.Sprintf("its cniVersion is %q, and %s speaks versions up to %s", c.version, Type, version.Current())
	}
	return ""
}

// with is the text with our plugin behind all others, laid out as they are.
func (c *chain) with() []byte {
	last := c.plugins[len(c.plugins)-1].end
	gap := c.text[c.first:c.plugins[0].start]
	return slices.Concat(c.text[:last], []byte{','}, gap, []byte(ours), c.text[last:])
}

// without is the text as it would be if our plugin had never been put into it.
func (c *chain) without() []byte {
	out := slices.Clone(c.text)
	for i := len(c.plugins) - 1; i >= 0; i-- {
		e := c.plugins[i]
		if e.kind != Type {
			continue
		}
		from, to := e.start, e.end
		switch {
		case i > 0:
			from = c.plugins[i-1].end
		case len(c.plugins) > 1:
			to = c.plugins[1].start
		}
		out = slices.Delete(out, from, to)
	}
	return out
}

// kinds are the types of the others' plugins.
func (c *chain) kinds() (list []string) {
	for _, e := range c.plugins {
		if e.kind != Type {
			list = append(list, e.kind)
		}
	}
	return list
}

// wrap makes a list of a single plugin's configuration (.conf), which is part of it byte by byte, and of ours.
func wrap(conf []byte) ([]byte, error) {
	var head struct {
		Name    string  `json:"name"`
		Type    string  `json:"type"`
		Version *string `json:"cniVersion"`
	}
	if err := json.Unmarshal(conf, &head); err != nil {
		return nil, err
	}
	if head.Type == "" || head.Name == "" {
		return nil, errors.New("it has no type or no name")
	}
	text := []byte("{\n")
	for _, m := range []struct {
		key   string
		value *string
	}{{"cniVersion", head.Version}, {"name", &head.Name}} {
		if m.value != nil {
			value, err := json.Marshal(*m.value)
			if err != nil {
				return nil, err
			}
			text = fmt.Appendf(text, "  %q: %s,\n", m.key, value)
		}
	}
	return fmt.Appendf(text, "  \"plugins\": [\n%s,\n%s\n]}\n", bytes.TrimSpace(conf), ours), nil
}
