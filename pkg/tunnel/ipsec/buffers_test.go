package ipsec

import (
	"net"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTheUDPSocketsOfAnotherProcessGetRoom gives a child two sockets, one of them of UDP, that this process holds, too.
func TestTheUDPSocketsOfAnotherProcessGetRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to go beyond net.core.rmem_max")
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var fds []int
	for _, s := range []interface{ File() (*os.File, error) }{udp, tcp} {
		f, err := s.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		fds = append(fds, int(f.Fd()))
	}
	size := func(fd int) int {
		n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := size(fds[1])
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sockets, err := widenAll(cmd.Process.Pid)
	if err != nil || sockets != 1 {
		t.Errorf("%d sockets of one, %v", sockets, err)
	}
	if got := size(fds[0]); got < socketBuffer {
		t.Errorf("the UDP socket has %d bytes, want %d", got, socketBuffer)
	}
	if got := size(fds[1]); got != before {
		t.Errorf("the TCP socket had %d bytes and has %d", before, got)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := widenAll(cmd.Process.Pid); err == nil {
		t.Error("a process that has ended has sockets")
	}
}
