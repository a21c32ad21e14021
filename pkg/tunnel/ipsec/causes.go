package ipsec

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// causes reads charon's log for why a peer has no tunnel.
type causes struct {
	mu sync.Mutex
	// byPeer is the last cause of each connection.
	byPeer map[string]string
	// at is the number of the IKE_SA that the cause of each connection came with.
	at map[string]string
	// claims are those of IKE_SAs, by number, that belong to no connection yet.
	claims map[string]claimed
}

// claimed is what the other end of an IKE_SA says: who it is and whom it looks for.
type claimed struct{ name, wanted, from string }

func newCauses() *causes {
	return &causes{byPeer: map[string]string{}, at: map[string]string{}, claims: map[string]claimed{}}
}

// logLine is what charon writes with ike_name: thread, group, and the connection's name and the IKE_SA's number.
var logLine = regexp.MustCompile(`^\d+\[[A-Z]+\] <(?:([^|>]+)\|)?(\d+)> (.*)$`)

// claim is how charon names the identities of an IKE_SA that asks for a connection.
var claim = regexp.MustCompile(`^looking for peer configs matching .*\[@?(.*)\]\.\.\.(.*)\[@?(.*)\]$`)

// known are charon's words and what they mean.
var known = []struct {
	words *regexp.Regexp
	// means may use the words' groups as $1 and so on; empty: the words themselves.
	means string
	// follows: charon says it behind a closer cause of the same attempt, too, which then stands.
	follows bool
}{
	{regexp.MustCompile(`but MAC mismatched`),
		"the peer has another pre-shared key: give both regions the same vpn-connection-psk (Secret raven-agent-secret)", false},
	{regexp.MustCompile(`received AUTHENTICATION_FAILED notify error`),
		"the peer refuses this node: see that both have the same pre-shared key or valid certificates of one authority, that the " +
			"address which is dialled is the peer's, " +
			"and that the peer knows this node", false},
	{regexp.MustCompile(`^no shared key found for '(.*)' - '(.*)'`), "this node has no pre-shared key for $2", false},
	{regexp.MustCompile(`^constraint check failed: (?:identity|peer not authenticated with) '?@?([^']*)'? ?required`),
		"the other end is not $1, whose address was dialled: correct the Gateway's publicIP, or the node name there", false},
	{regexp.MustCompile(`^IDir '(.*)' does not match to '(.*)'`),
		"the other end says that it is $1, where $2 was dialled: correct the Gateway's publicIP, or the node name there", false},
	{regexp.MustCompile(`received NO_PROPOSAL_CHOSEN`), "the two ends share no cipher: run the same version on both", false},
	{regexp.MustCompile(`received TS_UNACCEPTABLE`), "the peer does not agree to the prefixes yet: its agent has another view of the cluster", false},
	{regexp.MustCompile(`^giving up after (\d+) retransmits`),
		"the peer does not answer: see that UDP gets there, and that its charon runs", false},
	{regexp.MustCompile(`error writing to socket: (.*)`), "packets cannot be sent to the peer: $1", false},
	{regexp.MustCompile(`^error installing route with policy (.*) out`), "charon has no address for $1, and gets one in the next pass", false},
	{regexp.MustCompile(`^subject certificate invalid \(valid from (.*) to (.*)\)`),
		"a certificate is not valid now (it is from $1 to $2): renew it, or correct the clock", false},
	{regexp.MustCompile(`^no trusted .* public key found for '(.*)'`), "no trusted certificate proves that the peer is $1", true},
	{regexp.MustCompile(`^signature validation failed, looking for another key`),
		"no trusted certificate proves that the peer is the node which it says: its certificate or its key is another's", false},
	{regexp.MustCompile(`^no issuer certificate found for "(.*)"`), "the certificate of $1 is signed by an authority that this node does not trust", false},
}

// read takes one line of charon's log.
func (c *causes) read(text string) {
	m := logLine.FindStringSubmatch(text)
	if m == nil {
		return
	}
	peer, number, words := m[1], m[2], m[3]
	c.mu.Lock()
	defer c.mu.Unlock()
	if cl := claim.FindStringSubmatch(words); cl != nil {
		if len(c.claims) >= rememberedPeers {
			clear(c.claims)
		}
		c.claims[number] = claimed{name: cl[3], wanted: cl[1], from: cl[2]}
		return
	}
	if strings.HasPrefix(words, "no matching peer config found") {
		if who, ok := c.claims[number]; ok {
			if len(c.byPeer) >= rememberedPeers {
				clear(c.byPeer)
			}
			c.byPeer[who.name] = fmt.Sprintf("%s dialled this node from %s, looking for %s, and was refused: "+
				"see that the Gateway's publicIP leads to the right node, and that both regions know one another",
				who.name, who.from, who.wanted)
		}
		return
	}
	if peer == "" {
		return
	}
	for _, k := range known {
		if at := k.words.FindStringSubmatchIndex(words); at != nil {
			if !k.follows || c.at[peer] != number {
				c.byPeer[peer], c.at[peer] = string(k.words.ExpandString(nil, k.means, words, at)), number
			}
			return
		}
	}
}

// of returns the last cause of a peer; empty where there is none.
func (c *causes) of(peer string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byPeer[peer]
}

// forget drops the cause of a peer whose tunnel is up.
func (c *causes) forget(peer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byPeer, peer)
	delete(c.at, peer)
}
