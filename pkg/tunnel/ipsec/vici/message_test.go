package vici

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func sample() *Message {
	child := new(Message).Set("mode", "tunnel").SetList("remote_ts", "10.1.0.0/24", "10.2.0.0/24").SetList("none")
	conn := new(Message).Set("version", "2").SetSection("children", new(Message).SetSection("net", child))
	return new(Message).SetSection("hub", conn).Set("empty", "")
}

func TestAMessageComesBackAsItWent(t *testing.T) {
	b, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	net := got.Section("hub").Section("children").Section("net")
	if !reflect.DeepEqual(net.List("remote_ts"), []string{"10.1.0.0/24", "10.2.0.0/24"}) || net.Get("mode") != "tunnel" {
		t.Errorf("decoded %v", net)
	}
	again, err := got.Encode()
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("encoded again %x (%v), want %x", again, err, b)
	}
}

// The bytes are the example of strongSwan's own description of the format.
func TestTheEncodingIsTheDocumentedOne(t *testing.T) {
	m := new(Message).Set("key1", "value1").
		SetSection("section1", new(Message).SetSection("sub-section", new(Message).Set("key2", "value2")).SetList("list1", "item1", "item2"))
	want := "\x03\x04key1\x00\x06value1" + "\x01\x08section1" + "\x01\x0bsub-section" + "\x03\x04key2\x00\x06value2" + "\x02" +
		"\x04\x05list1\x05\x00\x05item1\x05\x00\x05item2\x06" + "\x02"
	b, err := m.Encode()
	if err != nil || string(b) != want {
		t.Errorf("encoded %q (%v)\nwant    %q", b, err, want)
	}
}

func TestWhatCannotBeEncodedIsRefused(t *testing.T) {
	for _, m := range []*Message{
		new(Message).Set(strings.Repeat("k", 256), "v"),
		new(Message).SetList("k", strings.Repeat("v", 1<<16)),
	} {
		if b, err := m.Encode(); err == nil {
			t.Errorf("encoded %d bytes without an error", len(b))
		}
	}
}

func TestBrokenMessagesAreRefused(t *testing.T) {
	for _, b := range []string{
		"\x02", "\x01\x01a", "\x03\x04key", "\x03\x01k\x00\x05v", "\x04\x01l", "\x04\x01l\x03", "\x05\x00\x01v", "\x09\x01k",
		strings.Repeat("\x01\x01a", 100),
	} {
		if m, err := Decode([]byte(b)); err == nil {
			t.Errorf("%q was read as %v", b, m)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, err := sample().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("\x04\x01l\x06"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		once, err := m.Encode()
		if err != nil {
			t.Fatalf("%q was read but cannot be written: %v", b, err)
		}
		again, err := Decode(once)
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%q was read as %v and then as %v (%v)", b, m, again, err)
		}
	})
}
