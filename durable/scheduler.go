package durable

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// scheduleNap is the longest sleep: clocks jump, and machines sleep.
	scheduleNap = time.Second
	// scheduleReread is how old rows get while nothing says that they changed.
	scheduleReread = 10 * time.Second
	// scheduleSettle is how often rows are read at most: some stores say that
	// they may have changed whenever anything has.
	scheduleSettle = 200 * time.Millisecond
	// scheduleTimeout bounds each call of the store.
	scheduleTimeout = 10 * time.Second
	// scheduleMaxRetry is the longest wait after a failure; the first is a
	// scheduleNap.
	scheduleMaxRetry = 30 * time.Second
	// scheduleClockBack is how far in the future the last tick may be before
	// the clock that fired it is taken to have been wrong.
	scheduleClockBack = 24 * time.Hour
)

// A scheduler fires the ticks of the schedules that a process declares. Any
// number of processes may do so: a tick is fired by whoever is first to move
// the row's Next on.
type scheduler struct {
	queue *Queue
	store Store
	log   *slog.Logger

	code     []ScheduleRow         // what this program says
	entries  map[string]*scheduled // what is stored of these
	declared bool
	failing  bool
	lastRead time.Time     // when the entries were read
	nextRead time.Time     // when they are to be
	wake     time.Time     // when there is something to do
	offset   time.Duration // of the store's clock from this machine's

	fires chan fired
	wg    sync.WaitGroup
}

// scheduled is one schedule in the eyes of a scheduler.
type scheduled struct {
	row        ScheduleRow
	ticks      ticks // of the spec and the zone in force; nil if they cannot be read
	spec, zone string
	later      bool // the row is that of a later build, which has been logged
	firing     bool
	failures   int
	notBefore  time.Time // by this machine's clock: of another try
}

// fired is the end of a fire.
type fired struct {
	fire   Fire
	result FireResult
	err    error
}

// newScheduler checks the schedules of a program.
func newScheduler(q *Queue, schedules []Schedule, log *slog.Logger) (*scheduler, error) {
	s := &scheduler{
		queue: q, store: q.store, log: log,
		entries: map[string]*scheduled{}, fires: make(chan fired, len(schedules)),
	}
	revision := buildRevision()
	for _, schedule := range schedules {
		schedule = schedule.withDefaults()
		if err := schedule.validate(); err != nil {
			return nil, err
		}
		if s.entries[schedule.Name] != nil {
			return nil, fmt.Errorf("durable: two schedules are called %q; give one another name", schedule.Name)
		}
		row, err := schedule.row(revision, q.Encode)
		if err != nil {
			return nil, err
		}
		s.code = append(s.code, row)
		s.entries[row.Name] = &scheduled{}
	}
	return s, nil
}

// buildRevision orders the builds of a program: which one's schedules win. It
// is when the commit was made that it is built from, or, for a build with
// changes or without a commit, when the executable was, in Unix seconds.
func buildRevision() int64 {
	info, ok := debug.ReadBuildInfo()
	if ok {
		settings := map[string]string{}
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
		if t, err := time.Parse(time.RFC3339, settings["vcs.time"]); err == nil && settings["vcs.modified"] == "false" {
			return t.Unix()
		}
	}
	path, err := os.Executable()
	if err != nil {
		return 0
	}
	file, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return file.ModTime().Unix()
}

// names returns what the process declares: Node.Schedules.
func (s *scheduler) names() []string {
	var names []string
	for _, row := range s.code {
		names = append(names, row.Name)
	}
	return names
}

// run fires ticks until ctx ends.
func (s *scheduler) run(ctx context.Context) {
	if len(s.code) == 0 {
		return
	}
	changed := s.queue.signals.subscribe(SignalSchedules)
	defer s.queue.signals.unsubscribe(changed)
	ctx, cancel := context.WithCancel(ctx)
	defer s.wg.Wait()
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-changed.C:
			s.readSoon()
		case f := <-s.fires:
			if ctx.Err() == nil {
				s.settle(f)
			}
		case <-timer.C:
			s.round(ctx)
		}
		timer.Reset(time.Until(s.wake))
	}
}

// readSoon has the schedules read again.
func (s *scheduler) readSoon() {
	if soon := s.lastRead.Add(scheduleSettle); soon.Before(s.nextRead) {
		s.nextRead = soon
	}
	s.wakeBy(s.nextRead)
}

func (s *scheduler) wakeBy(t time.Time) {
	if t.Before(s.wake) {
		s.wake = t
	}
}

// wakeFor wakes when a schedule is due.
func (s *scheduler) wakeFor(e *scheduled) {
	if due, ok := s.due(e); ok {
		s.wakeBy(due)
	}
}

// due returns when a schedule is to be fired next, by this machine's clock.
func (s *scheduler) due(e *scheduled) (time.Time, bool) {
	if e.ticks == nil || e.row.Paused || e.row.Next.IsZero() || e.firing {
		return time.Time{}, false
	}
	due := e.row.Next.Add(-s.offset)
	if e.notBefore.After(due) {
		due = e.notBefore
	}
	return due, true
}

// round reads the schedules if need be and fires what is due.
func (s *scheduler) round(ctx context.Context) {
	now := s.now(ctx)
	if !time.Now().Before(s.nextRead) {
		again := scheduleReread
		err := s.refresh(ctx, now)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			again = scheduleNap
		}
		s.report(err)
		s.lastRead = time.Now()
		s.nextRead = s.lastRead.Add(again)
	}
	s.wake = time.Now().Add(scheduleNap)
	s.wakeBy(s.nextRead)
	for _, e := range s.entries {
		if due, ok := s.due(e); ok && !due.After(time.Now()) && !e.row.Next.After(now) {
			s.fire(ctx, e, now)
		}
		s.wakeFor(e)
	}
}

// now returns the store's time, which is asked for each time as either clock
// may jump; while the store does not answer, what its time should be.
func (s *scheduler) now(ctx context.Context) time.Time {
	ctx, cancel := context.WithTimeout(ctx, scheduleTimeout)
	defer cancel()
	if now, err := s.store.Now(ctx); err == nil {
		s.offset = time.Until(now)
	}
	return time.Now().Add(s.offset).Round(0).UTC()
}

// report logs the beginning and the end of an outage.
func (s *scheduler) report(err error) {
	switch {
	case err != nil && !s.failing:
		s.log.Warn("schedules cannot be read; trying again", "error", err)
	case err == nil && s.failing:
		s.log.Info("schedules can be read again")
		for _, e := range s.entries {
			e.failures, e.notBefore = 0, time.Time{}
		}
	}
	s.failing = err != nil
}

// refresh reads the schedules, and declares those that are not there.
func (s *scheduler) refresh(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, scheduleTimeout)
	defer cancel()
	if !s.declared {
		if err := s.declare(ctx, s.code, now); err != nil {
			return err
		}
		s.declared = true
	}
	stored, err := s.load(ctx, now)
	if err != nil {
		return err
	}
	var missing []ScheduleRow
	for _, row := range s.code {
		if !stored[row.Name] {
			missing = append(missing, row)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	// Somebody has deleted what this program still says.
	if err := s.declare(ctx, missing, now); err != nil {
		return err
	}
	_, err = s.load(ctx, now)
	return err
}

func (s *scheduler) declare(ctx context.Context, rows []ScheduleRow, now time.Time) error {
	for i := range rows {
		ticks, err := parseTicks(rows[i].Spec, rows[i].Zone)
		if err != nil {
			return err
		}
		rows[i].Next = ticks.next(now)
	}
	return s.store.DeclareSchedules(ctx, rows)
}

// load takes over what is stored, and returns the names of what is.
func (s *scheduler) load(ctx context.Context, now time.Time) (stored map[string]bool, err error) {
	rows, err := s.store.Schedules(ctx)
	if err != nil {
		return nil, err
	}
	stored = map[string]bool{}
	for _, row := range rows {
		if e := s.entries[row.Name]; e != nil {
			stored[row.Name] = true
			s.take(ctx, e, row, now)
		}
	}
	for name, e := range s.entries {
		if !stored[name] {
			e.ticks, e.spec = nil, ""
		}
	}
	return stored, nil
}

// take takes over what is stored of one schedule.
func (s *scheduler) take(ctx context.Context, e *scheduled, row ScheduleRow, now time.Time) {
	if !row.Next.Equal(e.row.Next) || row.Version != e.row.Version {
		e.failures, e.notBefore = 0, time.Time{}
	}
	e.row = row
	if spec, zone := row.inForce(); spec != e.spec || zone != e.zone || e.ticks == nil {
		read, err := parseTicks(spec, zone)
		if err != nil && (spec != e.spec || zone != e.zone) {
			s.log.Error("a schedule cannot be read and does not fire", "schedule", row.Name, "error", err)
		}
		e.spec, e.zone, e.ticks = spec, zone, read
	}
	if later := row.Revision > s.code[0].Revision; later != e.later {
		e.later = later
		if later {
			s.log.Warn("a later build has declared this schedule, which counts; delete the schedule to go back to what this build says",
				"schedule", row.Name, "spec", row.Spec, "built", time.Unix(row.Revision, 0).UTC())
		}
	}
	s.healClock(ctx, e, now)
}

// healClock computes Next again when a clock that was far ahead has fired
// ticks: otherwise the schedule would be still until that time comes.
func (s *scheduler) healClock(ctx context.Context, e *scheduled, now time.Time) {
	if e.ticks == nil || !e.row.LastTick.After(now.Add(scheduleClockBack)) {
		return
	}
	next := e.ticks.next(now)
	if !e.row.Next.After(next) {
		return
	}
	s.log.Warn("a schedule's last tick is far in the future; the clock has gone back and it begins again",
		"schedule", e.row.Name, "last_tick", e.row.LastTick, "now", now)
	e.row.Next = next
	if err := s.store.ChangeSchedule(ctx, e.row); err != nil {
		e.ticks, e.spec = nil, "" // as it is stored still; the next reading tries again
		return
	}
	e.row.Version++
}

// fire fires what is due of a schedule, and does not wait for it.
func (s *scheduler) fire(ctx context.Context, e *scheduled, now time.Time) {
	c := catchUpFor(e.ticks, Misfire(e.row.Misfire), e.row.Next, now)
	if c.missed || len(c.run) > 1 {
		s.log.Warn("ticks of a schedule were missed", "schedule", e.row.Name, "first", e.row.Next, "now", now,
			"misfire", e.row.Misfire, "added", len(c.run))
	}
	f := Fire{
		Name: e.row.Name, Expect: e.row.Next, Next: c.next, LastTick: e.row.LastTick,
		Overlap: e.row.Overlap, Inserts: c.inserts(&e.row),
	}
	if len(c.run) > 0 {
		f.LastTick = c.run[len(c.run)-1]
	}
	e.firing = true
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, scheduleTimeout)
		defer cancel()
		result, err := s.queue.fire(ctx, f)
		s.fires <- fired{f, result, err} // has room: a schedule fires once at a time
	})
}

// settle takes note of how a fire has ended.
func (s *scheduler) settle(f fired) {
	e := s.entries[f.fire.Name]
	e.firing = false
	if f.err == nil && f.result.Fired {
		e.failures = 0
		for _, in := range f.result.Inserted {
			if in.Err != nil {
				s.log.Error("a schedule's task could not be added", "schedule", e.row.Name, "error", in.Err)
			}
		}
		if !f.result.Replaced.IsZero() {
			s.queue.batcher.tellEngine((*Engine).beatSoon) // which hears there that it is cancelled
		}
		if f.result.Skipped > 0 {
			s.log.Info("a tick of a schedule has added no task, as the last one has not finished or the tick has had one", "schedule", e.row.Name,
				"tick", f.fire.LastTick, "last_task", e.row.LastTask)
		}
		if e.row.Next.Equal(f.fire.Expect) {
			e.row.Next, e.row.LastTick = f.fire.Next, f.fire.LastTick
		}
		s.wakeFor(e)
		return
	}
	// Another process has fired it, somebody has changed it, or it is not
	// known what became of it: what is stored says.
	s.readSoon()
	wait := scheduleNap
	if f.err != nil {
		if e.failures == 0 {
			s.log.Warn("a schedule could not be fired; trying again", "schedule", e.row.Name, "error", f.err)
		}
		wait = min(scheduleMaxRetry, scheduleNap<<min(e.failures, 10))
		e.failures++
	}
	e.notBefore = time.Now().Add(wait)
	s.wakeFor(e)
}
