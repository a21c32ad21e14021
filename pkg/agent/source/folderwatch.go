package source

import (
	"fmt"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// folderWatch gives notices of a folder's entries, and follows the path when another folder takes its place. A nil
// folderWatch gives none.
type folderWatch struct {
	dir     string
	watcher *fsnotify.Watcher
	on      identity // the folder that is watched
}

func newFolderWatch(dir string) (*folderWatch, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("start inotify: %w", err)
	}
	w := &folderWatch{dir: filepath.Clean(dir), watcher: watcher}
	w.follow()
	return w, nil
}

// follow puts the watch onto the folder that the path leads to now. Where there is none, the periodic look finds it
// when it comes back.
func (w *folderWatch) follow() {
	if w == nil {
		return
	}
	now, _, err := identify(w.dir)
	if err == nil && now.dev == w.on.dev && now.ino == w.on.ino && len(w.watcher.WatchList()) > 0 {
		return
	}
	if w.on != (identity{}) {
		// The error only says that the kernel dropped the watch together with the folder.
		_ = w.watcher.Remove(w.dir)
		w.on = identity{}
	}
	if err == nil && w.watcher.Add(w.dir) == nil {
		w.on = now
	}
}

func (w *folderWatch) events() <-chan fsnotify.Event {
	if w == nil {
		return nil
	}
	return w.watcher.Events
}

func (w *folderWatch) errors() <-chan error {
	if w == nil {
		return nil
	}
	return w.watcher.Errors
}

func (w *folderWatch) close() {
	if w != nil {
		_ = w.watcher.Close() // nothing is left to be lost
	}
}
