// Package regions runs the lab's regions by a real API server: real agents read it, the real controller elects, and nodes
// have heartbeats that can stop.
package regions
