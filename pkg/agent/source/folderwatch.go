package source

import (
	"fmt"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// folderWatch gives notices of a folder's entries. It follows the path when another folder takes its place, and while
// there is none it watches the folder above for its coming. A nil folderWatch gives no notices.
type folderWatch struct {
	dir     string
	watcher *fsnotify.Watcher
	at      string   // the path that is watched
	on      identity // the folder that was there
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

// follow puts the watch where it belongs now. A watch that cannot be had is tried again at the next periodic look.
func (w *folderWatch) follow() {
	if w == nil {
		return
	}
	at := w.dir
	now, _, err := identify(at)
	if err != nil {
		at = filepath.Dir(w.dir)
		if now, _, err = identify(at); err != nil {
			return
		}
	}
	if at == w.at && now.dev == w.on.dev && now.ino == w.on.ino && len(w.watcher.WatchList()) > 0 {
		return
	}
	if w.at != "" {
		// An error only says that the kernel dropped the watch together with the folder.
		_ = w.watcher.Remove(w.at)
	}
	if w.at, w.on = "", (identity{}); w.watcher.Add(at) == nil {
		w.at, w.on = at, now
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
