package mux

import "sync"

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// backlog is what has arrived and was not taken.
type backlog struct {
	pieces []piece
	n      int
}

// piece is a part of it; large ones are in a chunk of the pool.
type piece struct {
	rest []byte
	of   *[chunk]byte
}

func (p *piece) free() {
	if p.of != nil {
		chunks.Put(p.of)
	}
	*p = piece{}
}

func (b *backlog) put(p []byte) {
	if len(p) == 0 {
		return
	}
	b.n += len(p)
	// Small ones are put together where there is room.
	if last := len(b.pieces) - 1; last >= 0 {
		if q := &b.pieces[last]; cap(q.rest)-len(q.rest) >= len(p) {
			q.rest = append(q.rest, p...)
			return
		}
	}
	var q piece
	if len(p) >= chunk/2 && len(p) <= chunk {
		q.of = chunks.Get().(*[chunk]byte)
		q.rest = q.of[:0]
	}
	q.rest = append(q.rest, p...)
	b.pieces = append(b.pieces, q)
}

func (b *backlog) take(p []byte) (n int) {
	for len(b.pieces) > 0 && n < len(p) {
		q := &b.pieces[0]
		k := copy(p[n:], q.rest)
		n += k
		if q.rest = q.rest[k:]; len(q.rest) == 0 {
			q.free()
			b.pieces = b.pieces[1:]
		}
	}
	if b.n -= n; b.n == 0 {
		b.pieces = nil // nothing is kept for a stream that is idle
	}
	return n
}

// next takes the first piece, which the caller frees.
func (b *backlog) next() piece {
	p := b.pieces[0]
	b.pieces[0] = piece{}
	b.pieces = b.pieces[1:]
	if b.n -= len(p.rest); b.n == 0 {
		b.pieces = nil
	}
	return p
}
