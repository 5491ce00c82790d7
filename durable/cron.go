package durable

import (
	"fmt"
	"math/bits"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/robfig/cron/v3"
)

// A Timing says when a schedule ticks. Make one with [Cron] or [Interval]. It
// is checked when the schedule is made.
type Timing struct{ spec string }

// Cron is the timing of a cron expression: minute, hour, day of the month,
// month and day of the week, as in "30 9 * * mon-fri". A sixth field in front
// is for seconds. Fields hold numbers, names of months and days, lists (1,15),
// ranges (1-5), steps (*/10) and * or ? for all; Sunday is 0. When both days
// are restricted, one of them is enough. @hourly, @daily (or @midnight),
// @weekly, @monthly and @yearly (or @annually) are short for what they say;
// "@every 5m" is [Interval].
//
// The expression is about the clocks of the schedule's zone. A tick comes at
// the first moment at which they show its time or a later one: when clocks go
// forward, a time that is left out ticks at the moment after the gap, and
// several in one gap tick once; when clocks go back, a time that they show
// twice ticks the first time. An hour field with a * or a step is not about
// certain hours, so such an expression ticks whenever the clocks show a
// matching time, which is twice in an hour that they show twice, and never in
// one that is left out.
//
// An expression that no day matches, as "0 0 30 2 *", is refused.
func Cron(expr string) Timing { return Timing{strings.Join(strings.Fields(expr), " ")} }

// Interval ticks every d, which is at least a second and has no fractions of
// one. Ticks are at the multiples of d that [time.Time.Truncate] finds, so
// that restarts do not move them: every 15 minutes is at each quarter of an
// hour, every 24 hours at midnight UTC, every 168 hours on Mondays.
func Interval(d time.Duration) Timing { return Timing{every + d.String()} }

const every = "@every "

// String returns the cron expression.
func (t Timing) String() string { return t.spec }

// Next returns the first tick after a time, in UTC. Zone is that of the
// expression, as in "Europe/Berlin"; "" is UTC.
func (t Timing) Next(after time.Time, zone string) (time.Time, error) {
	ticks, err := parseTicks(t.spec, zone)
	if err != nil {
		return time.Time{}, fmt.Errorf("durable: %w", err)
	}
	return ticks.next(after), nil
}

// ticks are all the ticks of a schedule.
type ticks interface {
	// next returns the first one after a time, in UTC and whole seconds; the
	// zero time if there is none.
	next(after time.Time) time.Time
}

const maxSpec = 256

// parseTicks reads what a row keeps of a Timing and its zone.
func parseTicks(spec, zone string) (ticks, error) {
	location, err := loadZone(zone)
	if err != nil {
		return nil, err
	}
	if len(spec) > maxSpec {
		return nil, fmt.Errorf("the cron expression %q is longer than %d bytes", shortened(spec, 40), maxSpec)
	}
	spec = Cron(spec).spec
	if !utf8.ValidString(spec) || strings.ContainsFunc(spec, unicode.IsControl) {
		return nil, fmt.Errorf("the cron expression %q has bytes that are no text", spec)
	}
	if d, ok := strings.CutPrefix(spec, every); ok {
		return parseInterval(d)
	}
	return parseCron(spec, location)
}

func parseInterval(s string) (ticks, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return nil, fmt.Errorf("the interval %q is not a duration as in \"1h30m\": %w", s, err)
	}
	if d < time.Second || d%time.Second != 0 || d > maxDelay {
		return nil, fmt.Errorf("the interval %v; it must be whole seconds, at least one, and at most ten years", d)
	}
	return interval(d), nil
}

// loadZone finds a zone by its IANA name.
func loadZone(name string) (*time.Location, error) {
	switch name {
	case "", "UTC":
		return time.UTC, nil
	case "Local":
		return nil, fmt.Errorf("the zone \"Local\" is another one on another machine; name it, as in \"Europe/Berlin\"")
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("the zone %q is not known; use an IANA name as in \"Europe/Berlin\", and import time/tzdata where the machine has no time zones: %w", shortened(name, 64), err)
	}
	return zone, nil
}

// interval ticks at multiples of itself.
type interval time.Duration

func (i interval) next(after time.Time) time.Time {
	return after.UTC().Truncate(time.Duration(i)).Add(time.Duration(i))
}

// cronTicks are those of a cron expression: a bit for each value of a field.
type cronTicks struct {
	second, minute, hour, day, month, weekday uint64

	eitherDay bool // both days are restricted: one of them is enough
	anyHour   bool // its hours are not certain ones, see Cron
	zone      *time.Location
}

// starBit is how the parser marks a field that is * or ?.
const starBit = 1 << 63

func parseCron(spec string, zone *time.Location) (ticks, error) {
	refuse := func(why string) (ticks, error) {
		return nil, fmt.Errorf("the cron expression %q: %s; write minute, hour, day of the month, month and day of the week (0 to 6, Sunday is 0), with seconds in front if need be, or @daily and the like", spec, why)
	}
	if strings.Contains(spec, "TZ=") {
		return refuse("it names a zone, which is set apart from it")
	}
	const fields = cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor
	parsed, err := cron.NewParser(fields).Parse(spec)
	if err != nil {
		return refuse(err.Error())
	}
	p, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return refuse("it is not an expression")
	}
	t := &cronTicks{
		second: p.Second &^ starBit, minute: p.Minute &^ starBit, hour: p.Hour &^ starBit,
		day: p.Dom &^ starBit, month: p.Month &^ starBit, weekday: p.Dow &^ starBit,
		eitherDay: p.Dom&starBit == 0 && p.Dow&starBit == 0,
		zone:      zone,
	}
	t.anyHour = p.Hour&starBit != 0 || bits.OnesCount64(t.hour) == 24
	if f := strings.Fields(spec); len(f) >= 5 {
		t.anyHour = t.anyHour || strings.ContainsAny(f[len(f)-4], "*?/")
	}
	if t.second == 0 || t.minute == 0 || t.hour == 0 {
		return refuse("a field is empty")
	}
	if t.next(time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return refuse("there is no such day")
	}
	return t, nil
}

// Times that clocks show are times in UTC here: the same date and hour.

func (t *cronTicks) next(after time.Time) time.Time {
	after = after.UTC().Truncate(time.Second)
	if t.anyHour {
		return t.nextShown(after)
	}
	shown, ok := t.match(t.notYetShown(after))
	if !ok {
		return time.Time{}
	}
	return firstMoment(shown, t.zone)
}

// notYetShown returns the earliest time that the clocks have not shown up to a
// moment.
func (t *cronTicks) notYetShown(moment time.Time) time.Time {
	p := periodAt(moment, t.zone)
	from := p.shows(moment).Add(time.Second)
	if p.start.IsZero() {
		return from
	}
	// Clocks that went back have shown what they show now already.
	if end := periodAt(p.start.Add(-time.Second), t.zone).shows(p.start); end.After(from) {
		return end
	}
	return from
}

// nextShown returns the next moment at which the clocks show a matching time.
func (t *cronTicks) nextShown(after time.Time) time.Time {
	p := periodAt(after, t.zone)
	from := p.shows(after).Add(time.Second)
	for limit := after.AddDate(2*searchYears, 0, 0); ; {
		shown, ok := t.match(from)
		if !ok {
			return time.Time{}
		}
		moment := shown.Add(-p.offset)
		if p.end.IsZero() || moment.Before(p.end) {
			return moment
		}
		if p.end.After(limit) {
			return time.Time{}
		}
		change := p.end
		p = periodAt(change, t.zone)
		from = p.shows(change)
	}
}

// searchYears is how far apart two ticks can be: from one 29 February to the
// next it is eight years around 2100.
const searchYears = 9

// match returns the first matching time from one on.
func (t *cronTicks) match(from time.Time) (time.Time, bool) {
	day := time.Date(from.Year(), from.Month(), from.Day(), 0, 0, 0, 0, time.UTC)
	if t.matchesDay(day) {
		if clock, ok := t.clock(from.Hour(), from.Minute(), from.Second()); ok {
			return day.Add(clock), true
		}
	}
	for last := day.Year() + searchYears; day.Year() <= last; {
		if !has(t.month, int(day.Month())) {
			day = time.Date(day.Year(), day.Month()+1, 1, 0, 0, 0, 0, time.UTC)
		} else {
			day = day.AddDate(0, 0, 1)
		}
		if t.matchesDay(day) {
			return day.Add(sinceMidnight(bitFrom(t.hour, 0), bitFrom(t.minute, 0), bitFrom(t.second, 0))), true
		}
	}
	return time.Time{}, false
}

func (t *cronTicks) matchesDay(day time.Time) bool {
	d, w := has(t.day, day.Day()), has(t.weekday, int(day.Weekday()))
	return has(t.month, int(day.Month())) && (d && w || t.eitherDay && (d || w))
}

// clock returns the first matching time of a day from one on, if there is one.
func (t *cronTicks) clock(hour, minute, second int) (time.Duration, bool) {
	if has(t.hour, hour) {
		if has(t.minute, minute) {
			if s := bitFrom(t.second, second); s < 64 {
				return sinceMidnight(hour, minute, s), true
			}
		}
		if m := bitFrom(t.minute, minute+1); m < 64 {
			return sinceMidnight(hour, m, bitFrom(t.second, 0)), true
		}
	}
	if h := bitFrom(t.hour, hour+1); h < 64 {
		return sinceMidnight(h, bitFrom(t.minute, 0), bitFrom(t.second, 0)), true
	}
	return 0, false
}

func has(set uint64, n int) bool { return set>>n&1 != 0 }

// bitFrom returns the first number of a set from n on, 64 or more if there is
// none.
func bitFrom(set uint64, n int) int { return n + bits.TrailingZeros64(set>>n) }

func sinceMidnight(hour, minute, second int) time.Duration {
	return time.Duration(hour*3600+minute*60+second) * time.Second
}

// A period is a time in which the clocks of a zone keep their distance from
// UTC. A start or an end that is zero is none.
type period struct {
	start, end time.Time
	offset     time.Duration
}

func periodAt(moment time.Time, zone *time.Location) period {
	local := moment.In(zone)
	_, offset := local.Zone()
	start, end := local.ZoneBounds()
	return period{start.UTC(), end.UTC(), time.Duration(offset) * time.Second}
}

// shows returns what the clocks show at a moment of the period, or would show
// at its end if it went on.
func (p period) shows(moment time.Time) time.Time { return moment.Add(p.offset) }

// firstMoment returns when the clocks of a zone show a time, or a later one,
// for the first time.
func firstMoment(shown time.Time, zone *time.Location) time.Time {
	// No zone is further than 16 hours from UTC: this is before the moment.
	p := periodAt(shown.Add(-26*time.Hour), zone)
	for !p.end.IsZero() && !shown.Before(p.shows(p.end)) {
		p = periodAt(p.end, zone)
	}
	moment := shown.Add(-p.offset)
	if moment.Before(p.start) {
		return p.start // the clocks went forward over the time
	}
	return moment
}
