// Package regions runs the lab's regions by a real API server: real agents read it, the real controller elects, and nodes
// have heartbeats that can stop. Where regions have the same addresses, the API server reaches nodes by name.
package regions
