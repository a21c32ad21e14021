package relay

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"testing"
	"testing/iotest"
)

func TestStreamsArriveWhole(t *testing.T) {
	data := make([]byte, 3*chunk+flowing+7)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	for name, src := range map[string]io.Reader{
		"at once": bytes.NewReader(data), "byte by byte": iotest.OneByteReader(bytes.NewReader(data)),
		"in halves": iotest.HalfReader(bytes.NewReader(data)), "end with data": iotest.DataErrReader(bytes.NewReader(data)),
	} {
		var out bytes.Buffer
		total := 0
		err := FromStream(&out, src, func(n int) error { total += n; return nil })
		if err != nil || !bytes.Equal(out.Bytes(), data) || total != len(data) {
			t.Errorf("%s: %v, %d bytes counted, %d of %d arrived", name, err, total, out.Len(), len(data))
		}
	}
	if err := FromStream(io.Discard, iotest.ErrReader(io.ErrUnexpectedEOF), func(int) error { return nil }); err == nil {
		t.Error("a stream that was cut off passes for one that ended")
	}
}

func TestASocketArrivesWhole(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	data := bytes.Repeat([]byte("raven"), chunk)
	sent := make(chan error, 1)
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			_, err = c.Write(data)
			c.Close()
		}
		sent <- err
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var out bytes.Buffer
	if err := FromSocket(&out, c, func(int) error { return nil }); err != nil || !bytes.Equal(out.Bytes(), data) {
		t.Fatalf("%v, %d of %d bytes", err, out.Len(), len(data))
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}
