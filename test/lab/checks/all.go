package checks

// All lists the checks that run in the tutorial's cluster with agents of any flags, or with those that they name.
func All() []Check {
	return append(Reach(), InnerOnOverlay, Attachments, Dumps, RedirectPod, RedirectNode, RedirectPodIPv6, MTU, VirtualIP,
		Masquerade, PolicyRejectsNewFlows, PolicyEngines, PolicyRevoked, Spoofing, BadInput, TenApplies, OwnedComeBack, SurviveKill,
		SnapshotStart, SaysBaseline, StrangersAtXDP, HandshakeFlood, AttachmentsClsact, ForeignUse, Repair)
}
