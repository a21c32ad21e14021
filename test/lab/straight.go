package lab

// buildStraight builds a Straight spec: first all hosts and the wires between them, then what lies on top. Its nodes
// cannot be rebooted, since a wire's other end would go with them.
func (l *Lab) buildStraight() error {
	var gateways []*Host
	for _, r := range l.Spec.Regions {
		var nodes []*Host
		for i := range r.Nodes {
			h, err := l.addNode(&r.Nodes[i])
			if err != nil {
				return err
			}
			nodes = append(nodes, h)
			if r.Nodes[i].Public.IsValid() {
				gateways = append(gateways, h)
			}
		}
		if err := connect(nodes[0], "eth0", nodes[1], "eth0"); err != nil {
			return err
		}
	}
	if err := connect(gateways[0], "eth1", gateways[1], "eth1"); err != nil {
		return err
	}
	for i := range l.Spec.Regions {
		r := &l.Spec.Regions[i]
		for j := range r.Nodes {
			if err := l.furnishNode(l.Host(r.Nodes[j].Name), r, &r.Nodes[j]); err != nil {
				return err
			}
		}
	}
	return nil
}
