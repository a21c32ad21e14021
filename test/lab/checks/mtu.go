package checks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ravencni/raven/test/lab"
)

// MTU: pods know nothing of tunnels; their cards say 1500.
var MTU = Check{
	Name: "mtu",
	Says: "pods with MTU 1500: bulk TCP moves at once, a full DF ping learns the MTU, a large UDP datagram arrives",
	Run: func(ctx context.Context, l *lab.Lab) (string, error) {
		var evidence []string
		for _, family := range []int{4, 6} {
			e, err := mtu(ctx, l, family)
			if err != nil {
				return "", fmt.Errorf("IPv%d: %w", family, err)
			}
			evidence = append(evidence, fmt.Sprintf("IPv%d: %s", family, e))
		}
		return strings.Join(evidence, "; "), nil
	},
}

func mtu(ctx context.Context, l *lab.Lab, family int) (string, error) {
	a, err := findEnd(l, "hangzhou-2/a")
	if err != nil {
		return "", err
	}
	b, err := findEnd(l, "qingdao-2/a")
	if err != nil {
		return "", err
	}
	// What earlier pings taught the pods would hide what the network does by itself.
	for _, e := range []end{a, b} {
		if _, err := e.host.Run(ctx, "ip", fmt.Sprintf("-%d", family), "route", "flush", "cache"); err != nil {
			return "", err
		}
	}
	mss, took, err := bulk(ctx, a, b, family)
	if err != nil {
		return "", err
	}
	path, err := fullPing(ctx, a, b, family)
	if err != nil {
		return "", err
	}
	headers := map[int]int{4: 40, 6: 60}[family]
	if mss > path-headers || mss < path-headers-40 {
		return "", fmt.Errorf("TCP's segments have %d bytes, the path's MTU of %d bytes allows %d", mss, path, path-headers)
	}
	if err := largeDatagram(ctx, a, b, family); err != nil {
		return "", err
	}
	return fmt.Sprintf("MTU %d, MSS %d, 8 MB in %s", path, mss, took.Round(time.Millisecond)), nil
}

// podMTU is that of the pods' cards.
const podMTU = 1500

// bulk sends 8 MB and returns the size of the sender's segments. Without a clamp the first full segments would be lost
// and the pod would have to wait for the error that names the path's MTU.
func bulk(ctx context.Context, a, b end, family int) (mss int, took time.Duration, err error) {
	const port, size = 9, 8 << 20
	listener, err := b.host.Listen(ctx, ":"+strconv.Itoa(port))
	if err != nil {
		return 0, 0, err
	}
	defer listener.Close()
	received := make(chan int64, 1)
	go func() {
		c, err := listener.Accept()
		if err != nil {
			received <- 0
			return
		}
		defer c.Close()
		n, err := io.Copy(io.Discard, c)
		if err == nil {
			_, err = c.Write([]byte("done"))
		}
		if err != nil {
			n = -1
		}
		received <- n
	}()
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := a.host.Dial(ctx, "tcp", netip.Addr{}, netip.AddrPortFrom(b.addr(family), port))
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	tcp := c.(*net.TCPConn)
	if _, err := tcp.Write(make([]byte, size)); err != nil {
		return 0, 0, fmt.Errorf("send %d bytes: %w", size, err)
	}
	if err := tcp.CloseWrite(); err != nil {
		return 0, 0, fmt.Errorf("end the transfer: %w", err)
	}
	if _, err := io.ReadAll(tcp); err != nil {
		return 0, 0, fmt.Errorf("wait for the receiver: %w", err)
	}
	took = time.Since(began)
	if n := <-received; n != size {
		return 0, 0, fmt.Errorf("%d of %d bytes arrived", n, size)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0, 0, fmt.Errorf("look at the connection: %w", err)
	}
	var info *unix.TCPInfo
	var infoErr error
	err = raw.Control(func(fd uintptr) { info, infoErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err := errors.Join(err, infoErr); err != nil {
		return 0, 0, fmt.Errorf("look at the connection: %w", err)
	}
	if info.Pmtu != podMTU {
		return 0, 0, fmt.Errorf("in %s of sending the path's MTU had to be found out: %d bytes", took, info.Pmtu)
	}
	// Options (time stamps) take their part of each segment.
	const timestamps = 12
	return int(info.Snd_mss) + timestamps, took, nil
}

var mtuOf = regexp.MustCompile(`mtu ?= ?(\d+)`)

// fullPing sends a ping with DF set that fills 1500 bytes and then one of the size that the error names, which must be
// answered, and returns that size.
func fullPing(ctx context.Context, a, b end, family int) (int, error) {
	headers := map[int]int{4: 28, 6: 48}[family]
	size := podMTU
	for range 2 {
		ping, err := a.host.Ping(ctx, b.addr(family), 1, "-M", "do", "-s", strconv.Itoa(size-headers))
		if err == nil && size < podMTU {
			return size, nil
		}
		m := mtuOf.FindStringSubmatch(ping.Output)
		if err == nil || m == nil {
			return 0, fmt.Errorf("a DF ping of %d bytes must learn the path's MTU, got: %s", size, ping.Output)
		}
		named, err := strconv.Atoi(m[1])
		if err != nil || named < 1280 || named >= size {
			return 0, fmt.Errorf("the error for %d bytes names an MTU of %s: %s", size, m[1], ping.Output)
		}
		size = named
	}
	return 0, fmt.Errorf("DF pings still fail at %d bytes, the size that the last error named", size)
}

// largeDatagram sends 8000 bytes by UDP without DF and gets them back.
func largeDatagram(ctx context.Context, a, b end, family int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := a.host.Dial(ctx, "udp", netip.Addr{}, netip.AddrPortFrom(b.addr(family), lab.EchoPort))
	if err != nil {
		return err
	}
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		return fmt.Errorf("look at the socket: %w", err)
	}
	var optErr error
	err = raw.Control(func(fd uintptr) {
		if family == 4 {
			optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
		} else {
			optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT)
		}
	})
	if err := errors.Join(err, optErr); err != nil {
		return fmt.Errorf("allow fragments: %w", err)
	}
	if _, _, err := lab.Exchange(ctx, c, strings.Repeat("x", 8000)); err != nil {
		return fmt.Errorf("a UDP datagram of 8000 bytes: %w", err)
	}
	return nil
}
