package ipsec

import "runtime"

// thread runs functions on one thread of the process, which is in a namespace of its own or belongs to a child's life.
type thread struct {
	work chan func()
	gone chan struct{}
}

// newThread starts a thread that calls enter first; it is gone at once where that fails.
func newThread(enter func() error) (*thread, error) {
	t := &thread{work: make(chan func()), gone: make(chan struct{})}
	ready := make(chan error)
	go func() {
		defer close(t.gone)
		// Never unlocked: the thread ends with this goroutine, and with it what was told to die with the thread.
		runtime.LockOSThread()
		err := enter()
		ready <- err
		if err != nil {
			return
		}
		for f := range t.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		<-t.gone
		return nil, err
	}
	return t, nil
}

// do runs f on the thread.
func (t *thread) do(f func() error) error {
	done := make(chan error)
	t.work <- func() { done <- f() }
	return <-done
}

// end waits until the thread has ended.
func (t *thread) end() {
	close(t.work)
	<-t.gone
}
