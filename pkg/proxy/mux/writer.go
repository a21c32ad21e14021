package mux

import (
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// queueLimit bounds what waits to be written; whoever has more waits.
	queueLimit = 256 << 10
	// floodLimit ends a connection whose peer has us answer and does not read the answers.
	floodLimit = 4 << 20
	// keepLimit is the largest buffer that a connection keeps while nothing is written.
	keepLimit = 32 << 10
	// turns is how many times somebody writes what others have queued meanwhile, before the flusher takes over.
	turns = 4
)

// writer writes frames whole and in order. Whoever has something to say writes it without a change of goroutines; whoever
// finds another one writing leaves his behind, which is written next, all that has gathered in one piece.
type writer struct {
	conn net.Conn
	// stuck is how long one write may take.
	stuck    time.Duration
	deadline time.Time // the connection's; owned by who is busy

	mu   sync.Mutex
	room sync.Cond // the queue has become shorter, or nobody is busy
	// queue is what is to be written, spare an empty buffer.
	queue, spare []byte
	busy         bool
	err          error
	// kick hands being busy over to the flusher.
	kick chan struct{}
}

func newWriter(c net.Conn, stuck time.Duration) *writer {
	w := &writer{conn: c, stuck: stuck, kick: make(chan struct{}, 1)}
	w.room.L = &w.mu
	return w
}

// write writes a frame of two parts; frame belongs to the caller again afterwards.
func (w *writer) write(header, payload []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.await(len(header) + len(payload)); err != nil {
		return err
	}
	w.queue = append(append(w.queue, header...), payload...)
	return w.flush()
}

// writeWhole is write for a large frame, which is copied only where another one is being written.
func (w *writer) writeWhole(frame []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.await(len(frame)); err != nil {
		return err
	}
	if w.busy || len(w.queue) > 0 {
		w.queue = append(w.queue, frame...)
		return w.flush()
	}
	w.busy = true
	w.mu.Unlock()
	err := w.send(frame)
	w.mu.Lock()
	w.busy = false
	w.room.Broadcast()
	if err != nil {
		w.err = err
		return err
	}
	return w.flush()
}

// post queues a frame and never waits, for the goroutine that reads: were it to wait for a peer that waits as well, both would
// wait for ever.
func (w *writer) post(frame []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	if len(w.queue)+len(frame) > floodLimit {
		w.err = fmt.Errorf("the peer does not read %d bytes of answers", len(w.queue))
		w.room.Broadcast()
		return w.err
	}
	w.queue = append(w.queue, frame...)
	if !w.busy {
		w.busy = true
		w.kick <- struct{}{}
	}
	return nil
}

// await waits for room. Call it under the mutex.
func (w *writer) await(n int) error {
	for w.err == nil && w.busy && len(w.queue)+n > queueLimit {
		w.room.Wait()
	}
	return w.err
}

// flush writes the queue, unless somebody does. Call it under the mutex.
func (w *writer) flush() error {
	if w.busy || len(w.queue) == 0 {
		return w.err
	}
	w.busy = true
	for range turns {
		w.turn()
		if len(w.queue) == 0 || w.err != nil {
			w.busy = false
			w.room.Broadcast()
			return w.err
		}
	}
	w.kick <- struct{}{} // whoever is busy is the only one who may, so there is room
	return nil
}

// turn writes what is queued. Call it under the mutex, and busy.
func (w *writer) turn() {
	out := w.queue
	w.queue, w.spare = w.spare, nil
	w.mu.Unlock()
	err := w.send(out)
	w.mu.Lock()
	if cap(out) <= keepLimit {
		w.spare = out[:0]
	}
	if err != nil && w.err == nil {
		w.err = err
	}
	w.room.Broadcast()
}

func (w *writer) send(p []byte) error {
	if now := time.Now(); w.deadline.Sub(now) < w.stuck*3/4 {
		w.deadline = now.Add(w.stuck)
		if err := w.conn.SetWriteDeadline(w.deadline); err != nil {
			return fmt.Errorf("write to a tunnel: %w", err)
		}
	}
	if _, err := w.conn.Write(p); err != nil {
		_ = w.conn.Close() // half a frame may have gone; whoever reads hears of the end
		return fmt.Errorf("write to a tunnel: %w", err)
	}
	return nil
}

// run is the flusher, until done is closed.
func (w *writer) run(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-w.kick:
		}
		w.mu.Lock()
		for len(w.queue) > 0 && w.err == nil {
			w.turn()
		}
		w.busy = false
		w.room.Broadcast()
		w.mu.Unlock()
	}
}

// fail has everybody give up.
func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.room.Broadcast()
}

// drained waits until everything is written, or the connection has failed.
func (w *writer) drained() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && (w.busy || len(w.queue) > 0) {
		w.room.Wait()
	}
}
