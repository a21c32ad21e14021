package bench

// Metric is one figure of a path.
type Metric struct {
	// Key names it in results; it ends in its unit.
	Key string
	// Title for people, with the unit after Scale.
	Title string
	// Scale divides the value for people; Digits are those after the point.
	Scale  float64
	Digits int
	// Less is true where less is better.
	Less bool
}

// Keys of the metrics.
const (
	RTT50       = "rtt_p50_us"
	RTT99       = "rtt_p99_us"
	TCP         = "tcp_bits_per_second"
	TCP8        = "tcp8_bits_per_second"
	UDP64       = "udp64_packets_per_second"
	UDPFull     = "udp_full_bits_per_second"
	Connections = "connections_per_second"
	CPUPerGB    = "tcp_cpu_seconds_per_gb"
	CPUPerMpkt  = "udp64_cpu_seconds_per_million_packets"
)

// Metrics are all of a path, in the order of tables and plots.
var Metrics = []Metric{
	{RTT50, "RTT p50, µs", 1, 1, true},
	{RTT99, "RTT p99, µs", 1, 0, true},
	{TCP, "TCP, Gb/s", 1e9, 2, false},
	{TCP8, "TCP, 8 streams, Gb/s", 1e9, 2, false},
	{UDP64, "UDP of 64 bytes, kpps", 1e3, 1, false},
	{UDPFull, "UDP of 1,372 bytes, Gb/s", 1e9, 2, false},
	{Connections, "connections/s", 1, 0, false},
	{CPUPerGB, "CPU s/GB", 1, 2, true},
	{CPUPerMpkt, "CPU s/million packets", 1, 1, true},
}
