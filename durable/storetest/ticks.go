package storetest

import (
	"time"

	"pgregory.net/rapid"

	"github.com/wake-go/wake/durable"
)

// ticks is the model's one schedule.
type ticks struct {
	next, last int // in minutes of a time of their own
	lastTask   durable.ID
	paused     bool
}

// scheduleName is that of the model's schedule.
const scheduleName = "ticks"

// minute is a time of the schedule.
func (m *machine) minute(n int) time.Time {
	return m.base.Truncate(time.Minute).Add(time.Duration(n) * time.Minute).UTC()
}

func (m *machine) declare(t *rapid.T) {
	m.ticks.next = 1
	must(t, m.s.DeclareSchedules(m.ctx, []durable.ScheduleRow{{
		Name: scheduleName, Spec: "@every 1m", Zone: "UTC", Misfire: "once", Overlap: "skip", Next: m.minute(1),
		Task: durable.Insert{Kind: "a", Queue: durable.DefaultQueue, MaxAttempts: 3},
	}}))
}

func (m *machine) stored(t *rapid.T) durable.ScheduleRow {
	rows, err := m.s.Schedules(m.ctx)
	must(t, err)
	same(t, "schedules", len(rows), 1)
	return rows[0]
}

func (m *machine) sameSchedule(t *rapid.T) {
	row := m.stored(t)
	same(t, "paused schedule", row.Paused, m.ticks.paused)
	same(t, "next tick", row.Next.UTC(), m.minute(m.ticks.next))
	same(t, "last task", row.LastTask, m.ticks.lastTask)
	same(t, "has a last tick", !row.LastTick.IsZero(), m.ticks.last > 0)
	if m.ticks.last > 0 {
		same(t, "last tick", row.LastTick.UTC(), m.minute(m.ticks.last))
	}
}

// hold pauses the schedule, or resumes it with its next tick elsewhere.
func (m *machine) hold(t *rapid.T) {
	row := m.stored(t)
	row.Paused = !m.ticks.paused
	row.Next = m.minute(m.ticks.next + 1)
	must(t, m.s.ChangeSchedule(m.ctx, row))
	m.ticks.paused = row.Paused
	m.ticks.next++
	row.Next = m.minute(1)
	sameError(t, "a change of what was read before another", m.s.ChangeSchedule(m.ctx, row), durable.ErrState)
}

// drawFire makes a tick: the next one, one that is past, or one by hand.
func (m *machine) drawFire(t *rapid.T) durable.Fire {
	at := m.ticks.next
	if chance(t, "too late", 25) {
		at--
	}
	f := durable.Fire{
		Name: scheduleName, Expect: m.minute(at), Next: m.minute(at + 1), LastTick: m.minute(at),
		Overlap: rapid.SampledFrom([]string{"skip", "allow", "replace"}).Draw(t, "overlap"),
		Manual:  chance(t, "by hand", 20),
	}
	for range rapid.IntRange(0, 2).Draw(t, "ticks") {
		f.Inserts = append(f.Inserts, m.drawInsert(t, false))
	}
	return f
}

// sameFire fires on the model and compares the answers.
func (m *machine) sameFire(t *rapid.T, f durable.Fire, got durable.FireResult) {
	fired := f.Manual || !m.ticks.paused && f.Expect.Equal(m.minute(m.ticks.next))
	same(t, "fired", got.Fired, fired)
	if !fired {
		return
	}
	if !f.Manual {
		m.ticks.last = m.ticks.next
		m.ticks.next++
	}
	var replaced durable.ID
	if last := m.find(m.ticks.lastTask); last != nil && !last.State.Finished() && len(f.Inserts) > 0 {
		switch f.Overlap {
		case "skip":
			same(t, "skipped", got.Skipped, len(f.Inserts))
			return
		case "replace":
			if m.model.cancel(last) == durable.Running {
				replaced = last.ID
			}
		}
	}
	same(t, "skipped", got.Skipped, 0)
	same(t, "inserted by a tick", len(got.Inserted), len(f.Inserts))
	if !replaced.IsZero() {
		same(t, "replaced", got.Replaced, replaced)
	}
	for i, in := range f.Inserts {
		want := m.insert(in, false)
		m.sameInsert(t, in, got.Inserted[i], want)
		m.ticks.lastTask = want.ID
	}
}
