package vici

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Elements of an encoded message.
const (
	sectionStart = 1
	sectionEnd   = 2
	keyValue     = 3
	listStart    = 4
	listItem     = 5
	listEnd      = 6
)

// maxDepth bounds how deep sections nest in what is read; charon's own answers go four deep.
const maxDepth = 32

// Message is an ordered tree: each key has a value, a list of values or a section, which is a Message again. The zero
// value is empty and ready.
type Message struct {
	keys   []string
	values map[string]any // string, []string or *Message
}

// Set gives key a value, which replaces what it had.
func (m *Message) Set(key, value string) *Message { return m.put(key, value) }

// SetList gives key a list.
func (m *Message) SetList(key string, values ...string) *Message {
	return m.put(key, slices.Clone(values))
}

// SetSection gives key a section.
func (m *Message) SetSection(key string, section *Message) *Message { return m.put(key, section) }

func (m *Message) put(key string, value any) *Message {
	if m.values == nil {
		m.values = map[string]any{}
	}
	if _, ok := m.values[key]; !ok {
		m.keys = append(m.keys, key)
	}
	m.values[key] = value
	return m
}

// Get returns the value of key; empty where it has none, or a list or section.
func (m *Message) Get(key string) string {
	if m == nil {
		return ""
	}
	s, _ := m.values[key].(string)
	return s
}

// List returns the list of key, nil where it has none.
func (m *Message) List(key string) []string {
	if m == nil {
		return nil
	}
	l, _ := m.values[key].([]string)
	return l
}

// Section returns the section of key, nil where it has none; a nil Message answers every question with nothing.
func (m *Message) Section(key string) *Message {
	if m == nil {
		return nil
	}
	s, _ := m.values[key].(*Message)
	return s
}

// Keys lists the keys in order.
func (m *Message) Keys() []string {
	if m == nil {
		return nil
	}
	return slices.Clone(m.keys)
}

// Encode writes the message as it goes on the wire. A key may have 255 bytes, a value 65535.
func (m *Message) Encode() ([]byte, error) { return m.encode(nil) }

func (m *Message) encode(b []byte) ([]byte, error) {
	if m == nil {
		return b, nil
	}
	for _, key := range m.keys {
		var err error
		switch v := m.values[key].(type) {
		case string:
			if b, err = appendName(append(b, keyValue), key); err == nil {
				b, err = appendValue(b, key, v)
			}
		case []string:
			b, err = appendName(append(b, listStart), key)
			for _, item := range v {
				if err == nil {
					b, err = appendValue(append(b, listItem), key, item)
				}
			}
			b = append(b, listEnd)
		case *Message:
			if b, err = appendName(append(b, sectionStart), key); err == nil {
				b, err = v.encode(b)
			}
			b = append(b, sectionEnd)
		}
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

func appendName(b []byte, name string) ([]byte, error) {
	if len(name) > 0xff {
		return nil, fmt.Errorf("the key %.40q... has %d bytes; 255 are possible", name, len(name))
	}
	return append(append(b, byte(len(name))), name...), nil
}

func appendValue(b []byte, key, value string) ([]byte, error) {
	if len(value) > 0xffff {
		return nil, fmt.Errorf("the value of %q has %d bytes; 65535 are possible", key, len(value))
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(len(value))), value...), nil
}

// errTruncated: the bytes end inside an element.
var errTruncated = errors.New("the message is cut off")

// Decode reads an encoded message. Of a key that stands twice in one section the last counts.
func Decode(b []byte) (*Message, error) {
	r := reader{rest: b}
	m, err := r.section(0)
	if err != nil {
		return nil, fmt.Errorf("decode a VICI message at byte %d of %d: %w", len(b)-len(r.rest), len(b), err)
	}
	return m, nil
}

type reader struct{ rest []byte }

func (r *reader) section(depth int) (*Message, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("sections nest deeper than %d", maxDepth)
	}
	m := &Message{}
	for len(r.rest) > 0 {
		kind, err := r.byte()
		if err != nil {
			return nil, err
		}
		if kind == sectionEnd {
			if depth == 0 {
				return nil, errors.New("a section ends that never began")
			}
			return m, nil
		}
		name, err := r.name()
		if err != nil {
			return nil, err
		}
		switch kind {
		case keyValue:
			v, err := r.value()
			if err != nil {
				return nil, err
			}
			m.Set(name, v)
		case sectionStart:
			s, err := r.section(depth + 1)
			if err != nil {
				return nil, err
			}
			m.SetSection(name, s)
		case listStart:
			l, err := r.list()
			if err != nil {
				return nil, err
			}
			m.put(name, l)
		default:
			return nil, fmt.Errorf("element type %d does not belong into a section", kind)
		}
	}
	if depth > 0 {
		return nil, errTruncated
	}
	return m, nil
}

func (r *reader) list() ([]string, error) {
	items := []string{}
	for {
		kind, err := r.byte()
		if err != nil {
			return nil, err
		}
		switch kind {
		case listEnd:
			return items, nil
		case listItem:
			v, err := r.value()
			if err != nil {
				return nil, err
			}
			items = append(items, v)
		default:
			return nil, fmt.Errorf("element type %d does not belong into a list", kind)
		}
	}
}

func (r *reader) byte() (byte, error) {
	b, err := r.take(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

func (r *reader) name() (string, error) {
	n, err := r.byte()
	if err != nil {
		return "", err
	}
	b, err := r.take(int(n))
	return string(b), err
}

func (r *reader) value() (string, error) {
	n, err := r.take(2)
	if err != nil {
		return "", err
	}
	b, err := r.take(int(binary.BigEndian.Uint16(n)))
	return string(b), err
}

func (r *reader) take(n int) ([]byte, error) {
	if len(r.rest) < n {
		return nil, errTruncated
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b, nil
}
