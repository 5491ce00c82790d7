package postgres

import (
	"bytes"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/wake-go/wake/durable"
)

// A cursor is where a lane's ready tasks begin, as far as is known. Behind a
// transaction that has been open for long, what has been claimed since stays
// in the index; a claim that begins at its cursor does not walk through it.
type cursor struct {
	rank int16
	id   durable.ID
}

func (c cursor) before(o cursor) bool {
	return c.rank < o.rank || c.rank == o.rank && bytes.Compare(c.id[:], o.id[:]) < 0
}

// beginnings are cursors that are before every task.
func beginnings(n int) []cursor { return slices.Repeat([]cursor{{rank: math.MinInt16}}, n) }

// cursors are those of all lanes. What this process itself makes ready moves
// them back; for what others do, claims look at everything every so often.
type cursors struct {
	mu     sync.Mutex
	byLane map[lane]cursor
	epoch  int       // how often one has been moved back
	whole  time.Time // when everything was looked at last
	pause  time.Duration
	spares int
}

const (
	rewindMost  = time.Second           // everything is looked at at least this often,
	rewindLeast = 50 * time.Millisecond // and at most this often, where it takes long less often
	rewindShare = 10                    // of the time
)

// get returns where claims of a queue's kinds begin, and whether that is the
// beginning of all.
func (c *cursors) get(queue string, kinds []string, now time.Time) (from []cursor, whole bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	from = beginnings(len(kinds))
	whole = true
	rewind := now.Sub(c.whole) >= max(rewindMost, c.pause)
	for i, kind := range kinds {
		if at, ok := c.byLane[lane{queue, kind}]; ok && !rewind {
			from[i], whole = at, false
		}
	}
	return from, whole
}

// now is the epoch of the cursors: what was found before it says nothing of
// what has become ready since.
func (c *cursors) now() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch
}

// Candidates beyond what is wanted: more whenever others were faster at all of
// them, and gradually less.
const (
	spareLeast = 32
	spareMost  = 4096
)

// spare returns how many there are to be now.
func (c *cursors) spare(contended bool) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if contended {
		c.spares *= 4
	} else {
		c.spares -= c.spares / 64
	}
	c.spares = min(max(c.spares, spareLeast), spareMost)
	return c.spares
}

// mayRewind reports whether everything may be looked at already.
func (c *cursors) mayRewind(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Sub(c.whole) >= c.pause
}

// note takes note of what a claim has found. Took is how long it was.
func (c *cursors) note(a *asked, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.whole {
		c.whole = time.Now()
		c.pause = max(rewindLeast, rewindShare*took)
	}
	if a.epoch != c.epoch || a.claim.Calm { // a calm claim leaves out what another one finds
		return
	}
	found := map[lane]cursor{}
	for i := range a.got {
		name := lane{a.got[i].Queue, a.got[i].Kind}
		at := cursor{rankOf(a.got[i].Priority), a.got[i].Ref.ID}
		if least, ok := found[name]; !ok || at.before(least) {
			found[name] = at
		}
	}
	if c.byLane == nil {
		c.byLane = map[lane]cursor{}
	}
	for name, at := range found {
		c.byLane[name] = at
	}
}

// ready moves the cursor of a lane back for a task that has become ready.
func (c *cursors) ready(name lane, at cursor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now, ok := c.byLane[name]; ok && at.before(now) {
		c.byLane[name] = at
		c.epoch++
	}
}

// forget moves all cursors back to the beginning.
func (c *cursors) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.byLane)
	c.epoch++
}
