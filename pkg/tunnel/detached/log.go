package detached

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// maxBytes bounds the log of a process that may run for years.
const maxBytes = 1 << 20

// Log writes to a file that it shares with nobody and drops the older half whenever the file has grown beyond
// max bytes. What is no regular file (a terminal, a pipe to a container's runtime) it leaves to its reader.
type Log struct {
	mu   sync.Mutex
	file *os.File
	max  int64
}

// NewLog writes to file, which is kept below 1 MiB where it is a regular one.
func NewLog(file *os.File) *Log { return &Log{file: file, max: maxBytes} }

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.file.Write(p)
	if err != nil {
		return n, err
	}
	info, err := l.file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() <= l.max {
		return n, err
	}
	return n, l.shorten(info.Size())
}

func (l *Log) shorten(size int64) error {
	keep := make([]byte, l.max/2)
	if _, err := l.file.ReadAt(keep, size-int64(len(keep))); err != nil && !errors.Is(err, io.EOF) {
		keep = nil // not opened for reading
	}
	if err := l.file.Truncate(0); err != nil {
		return fmt.Errorf("shorten the log: %w", err)
	}
	_, err := l.file.Write(keep) // opened for appending, hence at the new end
	return err
}
