package durable

import "time"

const (
	// misfireSpread is the time over which tasks that make up for missed ticks
	// begin.
	misfireSpread = time.Minute
	// misfireReach is how far back missed ticks are looked for.
	misfireReach = 100 * 366 * 24 * time.Hour
)

// A catchUp says what to do about the ticks that are due.
type catchUp struct {
	run    []time.Time   // to be fired, oldest first
	spread time.Duration // the time over which they begin
	missed bool          // there are others, which are left out
	next   time.Time     // the first one that is not due
}

// catchUpFor applies a rule to the ticks that are due, of which first is the
// earliest.
func catchUpFor(t ticks, rule Misfire, first, now time.Time) catchUp {
	most := 1
	if rule == MisfireAll {
		most = MaxMisfires
	}
	run, more := lastTicks(t, first, now, most)
	c := catchUp{run: run, missed: more, next: t.next(now)}
	if rule == MisfireSkip && now.Sub(run[0]) > MisfireGrace {
		c.run, c.missed = nil, true
	}
	if len(c.run) > 1 {
		c.spread = misfireSpread
		if !c.next.IsZero() {
			c.spread = min(c.spread, c.next.Sub(now))
		}
	}
	return c
}

// lastTicks returns up to n ticks of those from first, which is one whatever
// the rules for clocks say today, up to now, and whether there are more. It
// looks back only as far as needed: there may be very many.
func lastTicks(t ticks, first, now time.Time, n int) (last []time.Time, more bool) {
	if earliest := now.Add(-misfireReach); first.Before(earliest) {
		first = t.next(earliest)
		if first.IsZero() || first.After(now) {
			first = now.Truncate(time.Second)
		}
	}
	for reach := time.Minute; ; reach *= 2 {
		from, whole := now.Add(-reach), false
		if !from.After(first) {
			from, whole = first, true
			last = append(last, first)
		}
		for tick := t.next(from); !tick.IsZero() && !tick.After(now); tick = t.next(tick) {
			if len(last) == 2*n {
				last = append(last[:0], last[n:]...)
				more = true
			}
			last = append(last, tick)
		}
		if whole || len(last) >= n || more {
			more = more || !whole || len(last) > n
			return last[max(0, len(last)-n):], more
		}
		last = last[:0]
	}
}

// inserts makes the tasks of a row's ticks.
func (c *catchUp) inserts(r *ScheduleRow) []Insert {
	in := make([]Insert, 0, len(c.run))
	for i, tick := range c.run {
		in = append(in, r.task(tick, c.spread*time.Duration(i)/time.Duration(len(c.run))))
	}
	return in
}
