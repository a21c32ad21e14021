// Package rtnl speaks rtnetlink in raw messages, for what must stay fast at tens of thousands of objects: dumps that the
// kernel filters, and writes sent many to a system call.
package rtnl
