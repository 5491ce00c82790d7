package waketest

import (
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// endless is a body that has always more, until it is closed.
type endless struct {
	sent   atomic.Int64
	closed atomic.Bool
}

func (e *endless) Read(p []byte) (int, error) {
	if e.closed.Load() {
		return 0, io.ErrClosedPipe
	}
	e.sent.Add(int64(len(p)))
	return len(p), nil
}

func (e *endless) Close() error {
	e.closed.Store(true)
	return nil
}

func TestAStreamThatNobodyReadsIsReadAheadUpToABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := &endless{}
		p := newPump(body)
		synctest.Wait()
		if sent := body.sent.Load(); sent < maxAhead || sent > maxAhead+1<<16 {
			t.Errorf("%d bytes were read ahead, want about %d", sent, maxAhead)
		}
		before := body.sent.Load()
		if _, err := io.CopyN(io.Discard, p, maxAhead/2); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if body.sent.Load() <= before {
			t.Error("what was read has made no room")
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}) // it fails if the pump's goroutine goes on
}
