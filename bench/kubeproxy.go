package bench

import (
	"context"
	"fmt"
	"strings"

	"github.com/ravencni/raven/test/lab"
)

// rulesPerService is what a Service of one port and one endpoint takes in kube-proxy's iptables mode: one to find it, two in
// its own chain, two in its endpoint's.
const rulesPerService = 5

// addKubeProxy gives every node the chains of kube-proxy's iptables mode: the fixed ones, and rules for as many Services
// as make up the number. A packet of an established flow meets the fixed rules of the filter table alone; a new flow is
// looked for among all Services, one after the other.
func addKubeProxy(ctx context.Context, l *lab.Lab, rules int) error {
	text := kubeProxy(rules)
	for _, node := range l.Nodes() {
		if _, err := l.Host(node).RunWith(ctx, strings.NewReader(text), "iptables-restore", "--noflush"); err != nil {
			return fmt.Errorf("add kube-proxy's rules: %w", err)
		}
	}
	return nil
}

// kubeProxy writes the chains for iptables-restore.
func kubeProxy(rules int) string {
	var chains, found, own strings.Builder
	for i := range rules / rulesPerService {
		service, endpoint := fmt.Sprintf("KUBE-SVC-%016X", i), fmt.Sprintf("KUBE-SEP-%016X", i)
		ip, to := fmt.Sprintf("10.96.%d.%d", i/250, 1+i%250), fmt.Sprintf("10.244.%d.%d", 100+i/250, 1+i%250)
		fmt.Fprintf(&chains, ":%s - [0:0]\n:%s - [0:0]\n", service, endpoint)
		fmt.Fprintf(&found, "-A KUBE-SERVICES -d %s/32 -p tcp -m comment --comment \"default/service-%d cluster IP\" -m tcp --dport 80 -j %s\n", ip, i, service)
		fmt.Fprintf(&own, "-A %s ! -s 10.244.0.0/16 -d %s/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ\n-A %s -j %s\n", service, ip, service, endpoint)
		fmt.Fprintf(&own, "-A %s -s %s/32 -j KUBE-MARK-MASQ\n-A %s -p tcp -m tcp -j DNAT --to-destination %s:80\n", endpoint, to, endpoint, to)
	}
	return `*nat
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
` + chains.String() + `-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -j MASQUERADE
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
` + found.String() + `-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
` + own.String() + `COMMIT
*filter
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-FIREWALL - [0:0]
-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
`
}
