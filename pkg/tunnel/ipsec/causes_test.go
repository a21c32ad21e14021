package ipsec

import (
	"strings"
	"testing"
)

func TestCharonsWordsBecomeCausesOfThePeerThatTheyAreAbout(t *testing.T) {
	c := newCauses()
	for _, line := range []string{
		"08[IKE] <edge-1|3> tried 1 shared key for 'cloud-1' - 'edge-1', but MAC mismatched",
		"06[IKE] <edge-2|4> giving up after 6 retransmits",
		"07[CFG] <5> looking for peer configs matching 192.0.0.8[cloud-9]...203.0.113.9[edge-3]",
		"07[CFG] <5> no matching peer config found",
		"07[CFG] <6> no matching peer config found",
		"05[IKE] <edge-4|7> subject certificate invalid (valid from Jan 01 00:00:00 2020 to Jan 02 00:00:00 2020)",
		"09[IKE] <edge-5|8> something that means nothing here",
		"no line of that kind",
	} {
		c.read(line)
	}
	for peer, want := range map[string]string{
		"edge-1": "another pre-shared key", "edge-2": "does not answer", "edge-3": "from 203.0.113.9, looking for cloud-9",
		"edge-4": "from Jan 01 00:00:00 2020 to Jan 02 00:00:00 2020",
	} {
		if got := c.of(peer); !strings.Contains(got, want) {
			t.Errorf("%s: %q does not say %q", peer, got, want)
		}
	}
	if got := c.of("edge-5"); got != "" {
		t.Errorf("edge-5 has the cause %q", got)
	}
	c.forget("edge-1")
	if got := c.of("edge-1"); got != "" {
		t.Errorf("a forgotten cause is still told: %q", got)
	}
}
