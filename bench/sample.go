package bench

// Sample is one measurement of one path: what it yielded, by the metrics' keys. What was not measured is absent.
type Sample struct {
	Tunnel string `json:"tunnel"`
	Path   string `json:"path"`
	// Round counts from 0. Within a round every metric is taken of one path after the other.
	Round  int                `json:"round"`
	Values map[string]float64 `json:"values"`
}
