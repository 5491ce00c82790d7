package sqlite

import (
	"sync/atomic"
	"time"
)

// A clock tells the store's time, for schedules, and the machine's own, for
// leases: that one nobody sets.
type clock struct{ offset *atomic.Int64 }

func newClock() clock { return clock{new(atomic.Int64)} }

func (c clock) now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }

// lease is the time that leases are counted in.
func (c clock) lease() time.Duration { return sinceBoot() + time.Duration(c.offset.Load()) }

// advance moves both, for tests.
func (c clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

func micros(t time.Time) int64 { return t.UnixMicro() }

func timeOf(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
