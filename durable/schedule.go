package durable

import (
	"fmt"
	"hash/fnv"
	"slices"
	"time"
)

// A Schedule adds a task at each tick of a Timing. Give it to EngineConfig in
// every process that runs its tasks: each tick is fired once, whichever of
// them does it. Make one with [NewSchedule], or as a literal that the engine
// checks.
//
// A schedule is a row in the store, under its name. Code declares it at each
// start; people can pause it, run it at once and give it another expression,
// which wins until they reset it, while the program runs: see
// [Queue.Schedules]. A schedule that no living process declares is kept, as an
// orphan, and does not fire.
//
// A new expression or zone counts from when it is declared, and makes up for
// nothing. When builds of a program differ, the later one's schedule counts:
// that of the later commit, or, where an executable does not know its commit,
// of the later executable. To go back to an earlier build's, delete the
// schedule with force; the programs that run declare it again.
//
// The argument of the job is encoded once, when the engine is made. The task
// that a tick adds has the schedule's name and the tick in its [Meta]. A tick
// is fired within milliseconds of its time by the store's clock, or later,
// never twice: a clock that goes back by up to a day does not repeat it.
type Schedule struct {
	Name string
	When Timing
	Job  Queueable

	// Zone is the IANA name of When's time zone, as in "Europe/Berlin".
	// Defaults to "UTC".
	Zone string

	// Misfire says what is done about ticks that no process was there for.
	// Defaults to MisfireOnce.
	Misfire Misfire

	// Overlap says what a tick does while the task of the one before has not
	// finished. Defaults to OverlapSkip.
	Overlap Overlap

	// Jitter puts each tick's task off by a part of it, which depends on the
	// name and the tick alone, so that schedules of the same time do not all
	// start at once. At most 24 hours; defaults to none.
	Jitter time.Duration
}

// A Misfire is a rule for ticks that were missed: no process was there, the
// store was not available, or all were late.
type Misfire string

// The rules for missed ticks.
const (
	// MisfireOnce adds one task for all, with the time of the last one.
	MisfireOnce Misfire = "once"
	// MisfireSkip adds none, but for a last tick that is late by no more than
	// MisfireGrace.
	MisfireSkip Misfire = "skip"
	// MisfireAll adds one for each of the last MaxMisfires, spread over a
	// minute, or the time to the next tick if that is less. The overlap rule
	// looks at the tick before them, not at each other.
	MisfireAll Misfire = "all"
)

const (
	// MisfireGrace is how late a tick may be and still fire with MisfireSkip.
	MisfireGrace = time.Minute
	// MaxMisfires is how many missed ticks MisfireAll makes up for.
	MaxMisfires = 100
)

// An Overlap is a rule for a tick whose predecessor's task has not finished:
// it runs, waits, or is to be tried again.
type Overlap string

// The rules for overlaps.
const (
	OverlapSkip    Overlap = "skip"    // adds no task
	OverlapAllow   Overlap = "allow"   // adds one all the same
	OverlapReplace Overlap = "replace" // cancels the earlier task, and adds one
)

const maxJitter = 24 * time.Hour

// A ScheduleOption sets a part of a Schedule.
type ScheduleOption func(*Schedule)

// InZone sets Schedule.Zone.
func InZone(name string) ScheduleOption { return func(s *Schedule) { s.Zone = name } }

// WithMisfire sets Schedule.Misfire.
func WithMisfire(rule Misfire) ScheduleOption { return func(s *Schedule) { s.Misfire = rule } }

// WithOverlap sets Schedule.Overlap.
func WithOverlap(rule Overlap) ScheduleOption { return func(s *Schedule) { s.Overlap = rule } }

// WithJitter sets Schedule.Jitter.
func WithJitter(most time.Duration) ScheduleOption { return func(s *Schedule) { s.Jitter = most } }

// NewSchedule makes a schedule. One that breaks a rule panics: an expression
// that cannot be read or never ticks, an unknown zone, a job without a kind.
func NewSchedule(name string, when Timing, job Queueable, opts ...ScheduleOption) Schedule {
	s := Schedule{Name: name, When: when, Job: job}
	for _, set := range opts {
		set(&s)
	}
	s = s.withDefaults()
	if err := s.validate(); err != nil {
		panic(err.Error())
	}
	return s
}

func (s Schedule) withDefaults() Schedule {
	if s.Zone == "" {
		s.Zone = "UTC"
	}
	if s.Misfire == "" {
		s.Misfire = MisfireOnce
	}
	if s.Overlap == "" {
		s.Overlap = OverlapSkip
	}
	return s
}

// validate checks a schedule with its defaults.
func (s *Schedule) validate() error {
	if err := checkName("schedule", s.Name); err != nil {
		return err
	}
	if _, err := parseTicks(s.When.spec, s.Zone); err != nil {
		return fmt.Errorf("durable: schedule %q: %w", s.Name, err)
	}
	switch {
	case s.Job == nil:
		return fmt.Errorf("durable: schedule %q has no Job; make one with a kind's With", s.Name)
	case !slices.Contains([]Misfire{MisfireOnce, MisfireSkip, MisfireAll}, s.Misfire):
		return fmt.Errorf("durable: Misfire of schedule %q is %q; it must be once, skip or all", s.Name, s.Misfire)
	case !slices.Contains([]Overlap{OverlapSkip, OverlapAllow, OverlapReplace}, s.Overlap):
		return fmt.Errorf("durable: Overlap of schedule %q is %q; it must be skip, allow or replace", s.Name, s.Overlap)
	case s.Jitter < 0 || s.Jitter > maxJitter:
		return fmt.Errorf("durable: Jitter of schedule %q is %v; it must be between 0 and %v", s.Name, s.Jitter, maxJitter)
	}
	in, err := s.Job.durableJob().insert()
	if err != nil {
		return fmt.Errorf("durable: the job of schedule %q: %w", s.Name, err)
	}
	if !in.At.IsZero() {
		return fmt.Errorf("durable: the job of schedule %q has At(%v), which would be the same for all ticks; leave it to the schedule", s.Name, in.At)
	}
	return nil
}

// row makes what code says of the schedule. Encode is that of the queue.
func (s *Schedule) row(revision int64, encode func(Queueable) (Insert, error)) (ScheduleRow, error) {
	task, err := encode(s.Job)
	if err != nil {
		return ScheduleRow{}, fmt.Errorf("durable: the job of schedule %q: %w", s.Name, err)
	}
	task.ID = ID{}
	return ScheduleRow{
		Name: s.Name, Spec: s.When.spec, Zone: s.Zone,
		Misfire: string(s.Misfire), Overlap: string(s.Overlap), Jitter: s.Jitter,
		Revision: revision, Task: task,
	}, nil
}

// inForce returns the expression and the zone that count: people's before
// code's.
func (r *ScheduleRow) inForce() (spec, zone string) {
	spec, zone = r.Spec, r.Zone
	if r.OverrideSpec != "" {
		spec = r.OverrideSpec
	}
	if r.OverrideZone != "" {
		zone = r.OverrideZone
	}
	return spec, zone
}

// task makes the task of a tick, to be run after a delay besides its own.
func (r *ScheduleRow) task(tick time.Time, delay time.Duration) Insert {
	in := r.Task
	in.ID = NewID()
	in.Delay += delay + jitter(r.Name, tick, r.Jitter)
	in.Meta.Schedule, in.Meta.Tick = r.Name, tick.Unix()
	return in
}

// jitter is always the same for a tick, whoever fires it.
func jitter(name string, tick time.Time, most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\n%d", name, tick.Unix())
	return time.Duration(mixed(h.Sum64()) % uint64(most))
}

// mixed spreads the few bits in which hashes of similar texts differ over all,
// as the finalizer of SplitMix64 does.
func mixed(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
