package wake

import (
	"fmt"
	"time"

	"github.com/wake-go/wake/durable"
)

// A Timing says when a schedule ticks: what [Cron] or [Interval] returns.
type Timing = durable.Timing

// A ScheduleOption is an option of a schedule.
type ScheduleOption = durable.ScheduleOption

// Cron makes a timing of a cron expression with five fields, as in
// "0 9 * * *", or a word like "@daily". See [durable.Cron] for the rules,
// daylight-saving time included.
func Cron(expr string) Timing { return durable.Cron(expr) }

// Interval makes a timing of equal steps, see [durable.Interval].
func Interval(d time.Duration) Timing { return durable.Interval(d) }

// InZone sets a schedule's time zone by its IANA name. Defaults to "UTC".
func InZone(name string) ScheduleOption { return durable.InZone(name) }

// Misfire sets what is done about ticks that no process was there for. Defaults
// to [durable.MisfireOnce].
func Misfire(rule durable.Misfire) ScheduleOption { return durable.WithMisfire(rule) }

// Overlap sets what a tick does while the task of the one before has not
// finished. Defaults to [durable.OverlapSkip].
func Overlap(rule durable.Overlap) ScheduleOption { return durable.WithOverlap(rule) }

// Jitter puts each tick's task off by a part of d. Defaults to none.
func Jitter(d time.Duration) ScheduleOption { return durable.WithJitter(d) }

// Every adds a task to the queue at each tick: once, however many processes
// run. The application needs a queue, and the task must be given to
// [Router.Tasks] unless its kind was declared by [Declare]. A name that is used
// twice, and a timing that never ticks, panic.
//
// A schedule can be paused, run at once and changed while the program runs, see
// [durable.Queue].
func (r *Router[S]) Every(name string, when Timing, job durable.Queueable, opts ...ScheduleOption) {
	schedule := durable.NewSchedule(name, when, job, opts...)
	r.add(func(m mount[S]) {
		h := m.host
		for _, known := range h.schedules {
			if known.Name == name {
				panic(fmt.Sprintf("wake: two schedules are called %q; give one of them another name, and include a router with schedules once", name))
			}
		}
		h.schedules = append(h.schedules, schedule)
	})
}
