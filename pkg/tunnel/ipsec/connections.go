package ipsec

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/ravencni/raven/pkg/tunnel/ipsec/vici"
)

// pskName is the secret's name in charon.
const pskName = "raven"

// Proposals: AEAD ciphers only, and key exchange by elliptic curves.
var (
	ikeProposals = []string{"aes256gcm16-prfsha384-x25519-ecp384", "chacha20poly1305-prfsha256-x25519-ecp256"}
	espProposals = []string{"aes256gcm16-x25519-ecp384", "aes128gcm16-x25519-ecp256", "chacha20poly1305-x25519-ecp256"}
)

// deadPeerDelay is how often a silent peer is asked whether it lives.
const deadPeerDelay = 5 * time.Second

// redialPause is how long a peer is left alone after an attempt; it doubles up to redialMost.
const (
	redialPause = 2 * time.Second
	redialMost  = 10 * time.Second
)

// connections keeps charon's connections as they are desired. Its methods must be called one at a time.
type connections struct {
	terms terms
	ask   func(context.Context, func(*vici.Conn) error) error
	// settled is told of each peer whose newest tunnel has stood for a while.
	settled func(peer string) error
	causes  *causes
	want    Desired
	// loaded is what charon was given, by peer; psk is the digest of its secret.
	loaded map[string]loaded
	psk    [sha256.Size]byte
	// certificates is the digest of those that charon was given.
	certificates [sha256.Size]byte
	// attempts by peer.
	attempts map[string]attempt
	traffic  traffic
}

type loaded struct {
	digest   [sha256.Size]byte
	endpoint netip.AddrPort
}

type attempt struct {
	next  time.Time
	pause time.Duration
}

func newConnections(t terms, ask func(context.Context, func(*vici.Conn) error) error, settled func(string) error, c *causes) *connections {
	return &connections{
		terms: t, ask: ask, settled: settled, causes: c, loaded: map[string]loaded{}, attempts: map[string]attempt{}, traffic: traffic{},
	}
}

// load brings charon's configuration to want and returns the number of writes. What has not changed is not touched; a
// connection whose prefixes change keeps running until the next keep has renewed what is inside it. Peers in without are
// left as they are.
func (c *connections) load(ctx context.Context, want Desired, without map[string]bool) (changes int, err error) {
	c.want = want
	err = c.ask(ctx, func(v *vici.Conn) error {
		var errs []error
		call := func(what, command string, request *vici.Message) bool {
			if _, err := v.Call(ctx, command, request); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", what, err))
				return false
			}
			changes++
			return true
		}
		if digest := want.Certificates.digest(); want.Certificates != nil && digest != c.certificates {
			given := call("give charon this node's private key", "load-key", new(vici.Message).Set("type", "any").Set("data", keyIn(want.Certificates.Key)))
			for i, certificate := range certificatesIn(want.Certificates.Chain) {
				if i > 0 { // the first goes with the connections
					given = call("give charon a certificate of the chain", "load-cert",
						new(vici.Message).Set("type", "X509").Set("flag", "NONE").Set("data", certificate)) && given
				}
			}
			for _, authority := range certificatesIn(want.Certificates.Authorities) {
				given = call("give charon an authority", "load-cert",
					new(vici.Message).Set("type", "X509").Set("flag", "CA").Set("data", authority)) && given
			}
			if given {
				c.certificates = digest
				clear(c.attempts)
			}
		}
		if digest := sha256.Sum256([]byte(want.PSK)); want.PSK != "" && digest != c.psk {
			if call("give charon the pre-shared key", "load-shared", new(vici.Message).Set("id", pskName).Set("type", "IKE").Set("data", want.PSK)) {
				c.psk = digest
				clear(c.attempts)
			}
		}
		wanted := map[string]bool{}
		for _, p := range want.Peers {
			wanted[p.Node] = true
			if without[p.Node] {
				continue
			}
			request := connection(c.terms, &want, p)
			text, err := request.Encode()
			if err != nil {
				errs = append(errs, fmt.Errorf("peer %s is left out: %w", p.Node, err))
				continue
			}
			old, known := c.loaded[p.Node]
			fresh := loaded{sha256.Sum256(text), p.Endpoint}
			if known && old.digest == fresh.digest {
				continue
			}
			if !call("give charon the peer "+p.Node, "load-conn", request) {
				continue
			}
			c.loaded[p.Node] = fresh
			delete(c.attempts, p.Node)
			if known && old.endpoint != fresh.endpoint && p.Dial {
				// It has moved, and what runs leads to where it was.
				errs = append(errs, terminate(ctx, v, "ike", p.Node))
			}
		}
		for node := range c.loaded {
			if wanted[node] {
				continue
			}
			if call("take the peer "+node+" from charon", "unload-conn", new(vici.Message).Set("name", node)) {
				delete(c.loaded, node)
				errs = append(errs, terminate(ctx, v, "ike", node))
				c.causes.forget(node)
			}
		}
		return errors.Join(errs...)
	})
	return changes, err
}

// terminate ends what is named without waiting for the other end; that nothing of the name runs is no error.
func terminate(ctx context.Context, v *vici.Conn, what, name string) error {
	_, err := v.Call(ctx, "terminate", new(vici.Message).Set(what, name).Set("force", "yes").Set("timeout", "-1"))
	if _, refused := errors.AsType[*vici.CommandError](err); refused {
		return nil
	}
	return err
}

// connection is a peer in charon's terms.
func connection(t terms, want *Desired, p DesiredPeer) *vici.Message {
	remote := "%any"
	m := new(vici.Message).Set("version", "2").Set("local_port", strconv.Itoa(t.port))
	if len(t.local) > 0 {
		var local []string
		for _, a := range t.local {
			local = append(local, a.String())
		}
		m.SetList("local_addrs", local...)
	}
	if p.Dial {
		remote = p.Endpoint.Addr().String()
		m.Set("remote_port", strconv.Itoa(int(p.Endpoint.Port())))
	}
	child := new(vici.Message).
		SetList("local_ts", "0.0.0.0/0", "::/0").
		SetList("remote_ts", t.selectors(p)...).
		SetList("esp_proposals", espProposals...).
		Set("mode", "tunnel").
		Set("rekey_time", seconds(cmp.Or(want.Lifetimes.Child, defaultChildLifetime))).
		Set("life_time", seconds(2*cmp.Or(want.Lifetimes.Child, defaultChildLifetime)+lifetimeReserve)).
		Set("rand_time", seconds(cmp.Or(want.Lifetimes.Child, defaultChildLifetime)/10)).
		Set("dpd_action", "clear").Set("start_action", "none").Set("close_action", "none")
	mobike := "no" // charon would offer the addresses of its namespace
	if t.number != nil {
		mobike = "yes"
		// With a number that does not change, what an earlier charon agreed on fits the policies of the next one.
		number := strconv.FormatUint(uint64(t.number(p.Node)), 10)
		child.Set("if_id_in", number).Set("if_id_out", number).Set("reqid", number).Set("copy_df", "no")
	}
	local, far := new(vici.Message).Set("auth", "psk"), new(vici.Message).Set("auth", "psk")
	if c := want.Certificates; c != nil {
		local, far = new(vici.Message).Set("auth", "pubkey"), new(vici.Message).Set("auth", "pubkey")
		if chain := certificatesIn(c.Chain); len(chain) > 0 {
			local.SetList("certs", chain[0])
		}
		far.SetList("cacerts", certificatesIn(c.Authorities)...)
	}
	m.SetList("remote_addrs", remote).
		SetList("proposals", ikeProposals...).
		Set("encap", "yes").Set("mobike", mobike).Set("fragmentation", "yes").
		Set("unique", "replace").Set("keyingtries", "1").
		Set("dpd_delay", seconds(deadPeerDelay)).
		Set("rekey_time", seconds(cmp.Or(want.Lifetimes.IKE, defaultIKELifetime))).
		Set("over_time", seconds(cmp.Or(want.Lifetimes.IKE, defaultIKELifetime)+lifetimeReserve)).
		Set("rand_time", seconds(cmp.Or(want.Lifetimes.IKE, defaultIKELifetime)/10)).
		SetSection("local", local.Set("id", identity(want.Node))).
		SetSection("remote", far.Set("id", identity(p.Node))).
		SetSection("children", new(vici.Message).SetSection(t.childName(p), child))
	return new(vici.Message).SetSection(p.Node, m)
}

// identity is a node's name as a fully qualified domain name, which the @ makes of any word.
func identity(node string) string { return "@" + node }

// seconds in charon's notation, rounded down.
func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) + "s" }

// keep dials what should run and does not, renews what runs by older words, ends what has been renewed, and reports.
func (c *connections) keep(ctx context.Context, now time.Time) (map[string]PeerReport, error) {
	reports := make(map[string]PeerReport, len(c.want.Peers))
	err := c.ask(ctx, func(v *vici.Conn) error {
		all, err := list(ctx, v)
		if err != nil {
			return err
		}
		var errs []error
		for _, p := range c.want.Peers {
			runs := all[p.Node]
			errs = append(errs, c.keepPeer(ctx, v, p, runs, now))
			reports[p.Node] = c.report(p, runs, now)
		}
		return errors.Join(errs...)
	})
	return reports, err
}

func (c *connections) keepPeer(ctx context.Context, v *vici.Conn, p DesiredPeer, runs []association, now time.Time) error {
	if _, known := c.loaded[p.Node]; !known {
		return nil
	}
	established, underway := false, false
	var installed []child
	for _, ike := range runs {
		established = established || ike.state == "ESTABLISHED"
		underway = underway || ike.state == "CREATED" || ike.state == "CONNECTING"
		for _, ch := range ike.children {
			switch ch.state {
			case "INSTALLED":
				installed = append(installed, ch)
			case "CREATED", "INSTALLING", "REKEYING", "UPDATING":
				// It carries traffic, or will in a moment; one more beside it would cost packets, as a renewal does not.
				underway = true
			}
		}
	}
	slices.SortFunc(installed, func(a, b child) int { return b.number - a.number })
	selectors := c.terms.selectors(p)
	// charon sends by the newest. Only that counts, and only what is older may go: the other end drops what still comes by
	// an association that has been ended.
	if len(installed) > 0 && sameSelectors(installed[0].remote, selectors) {
		delete(c.attempts, p.Node)
		c.causes.forget(p.Node)
		if installed[0].age < supersededAfter {
			return nil
		}
		errs := []error{c.settled(p.Node)}
		for _, old := range installed[1:] {
			// Where both ends renewed at once there are two that are right, and the one that dials clears up.
			if p.Dial || !sameSelectors(old.remote, selectors) {
				errs = append(errs, terminate(ctx, v, "child-id", strconv.Itoa(old.number)))
			}
		}
		return errors.Join(errs...)
	}
	if underway || !established && !p.Dial || len(selectors) == 0 {
		return nil
	}
	// Prefixes that were changed and changed back: charon makes no second association like one that is there, but sends by
	// the newest all the same.
	for i, old := range installed {
		if i > 0 && sameSelectors(old.remote, selectors) {
			if installed[0].age < supersededAfter {
				return nil // what is under way may still come by the older one
			}
			return terminate(ctx, v, "child-id", strconv.Itoa(old.number))
		}
	}
	a := c.attempts[p.Node]
	if now.Before(a.next) {
		return nil
	}
	a.pause = min(max(2*a.pause, redialPause), redialMost)
	a.next = now.Add(a.pause)
	c.attempts[p.Node] = a
	_, err := v.Call(ctx, "initiate", new(vici.Message).
		Set("child", c.terms.childName(p)).Set("ike", p.Node).Set("timeout", "-1").Set("init-limits", "no"))
	if err != nil {
		return fmt.Errorf("dial %s: %w", p.Node, err)
	}
	return nil
}

// supersededAfter is how long an association still takes what is under way after a newer one has come.
const supersededAfter = 2 * time.Second

// association is an IKE_SA.
type association struct {
	state       string
	remote      netip.AddrPort
	established time.Duration
	children    []child
}

// child is a CHILD_SA.
type child struct {
	number  int
	state   string
	age     time.Duration
	remote  []string
	in, out uint64
}

// list reads what runs, by connection.
func list(ctx context.Context, v *vici.Conn) (map[string][]association, error) {
	all := map[string][]association{}
	_, err := v.Stream(ctx, "list-sas", "list-sa", nil, func(m *vici.Message) {
		for _, name := range m.Keys() {
			ike := m.Section(name)
			if ike == nil {
				continue
			}
			a := association{state: ike.Get("state"), established: time.Duration(number(ike.Get("established"))) * time.Second}
			if addr, err := netip.ParseAddr(ike.Get("remote-host")); err == nil {
				a.remote = netip.AddrPortFrom(addr.Unmap(), uint16(number(ike.Get("remote-port"))))
			}
			children := ike.Section("child-sas")
			for _, key := range children.Keys() {
				ch := children.Section(key)
				a.children = append(a.children, child{
					number: int(number(ch.Get("uniqueid"))), state: ch.Get("state"),
					age: time.Duration(number(ch.Get("install-time"))) * time.Second, remote: ch.List("remote-ts"),
					in: number(ch.Get("bytes-in")), out: number(ch.Get("bytes-out")),
				})
			}
			all[name] = append(all[name], a)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list what charon runs: %w", err)
	}
	return all, nil
}

// number reads a figure of charon's, 0 where there is none.
func number(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// sameSelectors compares what runs with what is wanted; charon writes ranges that fill a prefix as the prefix.
func sameSelectors(have, want []string) bool {
	if len(have) != len(want) {
		return false
	}
	norm := func(in []string) []string {
		out := make([]string, len(in))
		for i, s := range in {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				out[i] = s
				continue
			}
			out[i] = p.Masked().String()
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(norm(have), norm(want))
}

// traffic counts bytes by peer across renewals, each of which starts charon's own counters anew.
type traffic map[string]*counted

type counted struct {
	gone [2]uint64
	last map[int][2]uint64
}

func (t traffic) add(peer string, children []child) (rx, tx uint64) {
	n := t[peer]
	if n == nil {
		n = &counted{last: map[int][2]uint64{}}
		t[peer] = n
	}
	now := make(map[int][2]uint64, len(children))
	rx, tx = n.gone[0], n.gone[1]
	for _, ch := range children {
		now[ch.number] = [2]uint64{ch.in, ch.out}
		rx, tx = rx+ch.in, tx+ch.out
	}
	for id, bytes := range n.last {
		if _, still := now[id]; !still {
			n.gone[0], n.gone[1] = n.gone[0]+bytes[0], n.gone[1]+bytes[1]
			rx, tx = rx+bytes[0], tx+bytes[1]
		}
	}
	n.last = now
	return rx, tx
}

// report says how a peer is.
func (c *connections) report(p DesiredPeer, runs []association, now time.Time) PeerReport {
	var r PeerReport
	var children []child
	for _, ike := range runs {
		children = append(children, ike.children...)
		if ike.state != "ESTABLISHED" {
			continue
		}
		r.Endpoint = ike.remote
		r.Established = now.Add(-ike.established).Truncate(time.Second)
		for _, ch := range ike.children {
			r.Up = r.Up || ch.state == "INSTALLED" || ch.state == "REKEYING" || ch.state == "REKEYED"
		}
	}
	r.RxBytes, r.TxBytes = c.traffic.add(p.Node, children)
	r.Waiting = !p.Dial && len(runs) == 0
	r.Cause = c.causes.of(p.Node)
	return r
}
