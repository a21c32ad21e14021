package cni

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/ravencni/raven/pkg/datapath/accel/pintree"
)

// DefaultLog is where the plugin says why a pod is not accelerated. The folder is the agent's: where no agent ever ran,
// nothing is written.
const DefaultLog = pintree.StateDir + "/cni.log"

// logBytes bounds the file; a full one is renamed to <name>.1.
const logBytes = 1 << 20

// logFile is a file that is opened for each line, since few runs of the plugin have something to say.
type logFile string

// Write appends one line, and never fails: nobody could be told.
func (l logFile) Write(line []byte) (int, error) {
	path := string(l)
	if info, err := os.Stat(path); err == nil && info.Size() > logBytes {
		_ = os.Rename(path, path+".1")
	}
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return len(line), nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return len(line), nil
	}
	_, err = f.Write(line)
	_ = errors.Join(err, f.Close())
	return len(line), nil
}
