package kernels

import (
	"fmt"
	"io"
)

// archive writes a cpio archive in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst), which
// the kernel unpacks into its first root.
type archive struct {
	w       io.Writer
	written int64
	inode   int
	err     error
}

const (
	modeFolder = 0o040755
	modeFile   = 0o100755
)

func (a *archive) folder(name string)            { a.entry(name, modeFolder, nil) }
func (a *archive) file(name string, body []byte) { a.entry(name, modeFile, body) }

// close ends the archive and returns the first error of any write.
func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, nil)
	return a.err
}

func (a *archive) entry(name string, mode uint32, body []byte) {
	a.inode++
	const links, devices = 1, 0
	a.write(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", a.inode, mode, 0, 0, links, 0,
		len(body), devices, devices, devices, devices, len(name)+1, 0))
	a.write(append([]byte(name), 0))
	a.align()
	a.write(body)
	a.align()
}

func (a *archive) align() { a.write(make([]byte, (4-a.written%4)%4)) }

func (a *archive) write(b []byte) {
	if a.err != nil {
		return
	}
	n, err := a.w.Write(b)
	a.written += int64(n)
	a.err = err
}
