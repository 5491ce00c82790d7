package sqlite

import (
	"os"
	"sync"
	"time"
)

// A ballast is a file whose room is given up when the disk is full, so that
// the outcomes of what runs still find a place. While it is gone, nothing is
// added.
type ballast struct {
	path string
	size int64

	mu   sync.Mutex
	gone bool
	last time.Time // it was tried to bring it back
}

// begin creates the file. Where there is no room for it there is none, and the
// first full disk finds out.
func (b *ballast) begin(database string, size int64) {
	b.path, b.size = database+"-wake-ballast", size
	if size > 0 {
		b.gone = !b.fill()
	}
}

// fill makes the file as large as it should be, with bytes that take room.
func (b *ballast) fill() bool {
	if info, err := os.Stat(b.path); err == nil && info.Size() == b.size {
		return true
	}
	f, err := os.OpenFile(b.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return false
	}
	block := make([]byte, 1<<16)
	for i := range block {
		block[i] = byte(i) // not a hole
	}
	for left := b.size; left > 0 && err == nil; left -= int64(len(block)) {
		_, err = f.Write(block[:min(left, int64(len(block)))])
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		_ = os.Truncate(b.path, 0)
		return false
	}
	return true
}

// giveUp makes room. It reports whether there was anything to give up.
func (b *ballast) giveUp() bool {
	if b.size <= 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		return false
	}
	b.gone, b.last = true, time.Now()
	return os.Truncate(b.path, 0) == nil
}

// missing reports whether the disk is still too full. It tries to bring the
// ballast back once a second.
func (b *ballast) missing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.gone {
		return false
	}
	if time.Since(b.last) > time.Second {
		b.last = time.Now()
		b.gone = !b.fill()
	}
	return b.gone
}

func (b *ballast) close() {
	if b.path != "" {
		_ = os.Remove(b.path)
	}
}
