// Package toggling lets a node be ready and unready by turns for longer than a role may move once: a test of half a
// minute, in a package of its own so that it runs beside others.
package toggling
