package durable_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
	"pgregory.net/rapid"
)

// at reads a time in UTC.
func at(t *testing.T, s string) time.Time {
	t.Helper()
	when, err := time.Parse("2006-01-02 15:04:05", s)
	if err != nil {
		when, err = time.Parse("2006-01-02 15:04", s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return when
}

func TestTicks(t *testing.T) {
	tests := []struct {
		name       string
		spec, zone string
		after      string
		want       []string
	}{
		{"each minute", "* * * * *", "", "2026-01-01 00:00", []string{"2026-01-01 00:01", "2026-01-01 00:02"}},
		{"a tick is later than what it follows", "30 9 * * *", "UTC", "2026-01-01 09:30", []string{"2026-01-02 09:30"}},
		{"a fraction of a second before", "30 9 * * *", "UTC", "2026-01-01 09:29:59", []string{"2026-01-01 09:30"}},
		{"six fields begin with seconds", "*/20 59 23 * * *", "", "2026-12-31 23:59:10", []string{"2026-12-31 23:59:20", "2026-12-31 23:59:40", "2027-01-01 23:59:00"}},
		{"the end of the year", "59 59 23 31 12 *", "", "2026-12-31 23:59:58", []string{"2026-12-31 23:59:59", "2027-12-31 23:59:59"}},
		{"names, ranges and steps", "0 9-17/4 * jan,jul mon-fri", "", "2026-01-30 12:59", []string{"2026-01-30 13:00", "2026-01-30 17:00", "2026-07-01 09:00"}},
		{"both days restricted: one is enough", "0 0 13 * fri", "", "2026-02-10 00:00", []string{"2026-02-13 00:00", "2026-02-20 00:00", "2026-02-27 00:00", "2026-03-06 00:00", "2026-03-13 00:00"}},
		{"a month's last day is not each month's", "0 0 31 * *", "", "2026-01-31 00:00", []string{"2026-03-31 00:00", "2026-05-31 00:00"}},
		{"leap days", "0 0 29 2 *", "", "2026-01-01 00:00", []string{"2028-02-29 00:00", "2032-02-29 00:00"}},
		{"leap days around 2100, which has none", "0 0 29 2 *", "", "2096-03-01 00:00", []string{"2104-02-29 00:00"}},
		{"descriptors", "@weekly", "", "2026-01-01 00:00", []string{"2026-01-04 00:00", "2026-01-11 00:00"}},
		{"a descriptor in a zone", "@daily", "Asia/Kathmandu", "2026-01-01 00:00", []string{"2026-01-01 18:15", "2026-01-02 18:15"}},
		{"an interval is anchored", "@every 15m", "Europe/Berlin", "2026-01-01 00:07:13", []string{"2026-01-01 00:15", "2026-01-01 00:30"}},
		{"a day's interval is at midnight", "@every 24h", "", "2026-01-01 05:00", []string{"2026-01-02 00:00"}},
		{"a week's interval is on Mondays", "@every 168h", "", "2026-01-01 05:00", []string{"2026-01-05 00:00"}},
		{"an interval that divides nothing", "@every 7s", "", "2026-01-01 00:00:00", []string{"2026-01-01 00:00:03", "2026-01-01 00:00:10"}},

		// Berlin: 29 March 2026, 02:00 is 03:00; 25 October 2026, 03:00 is 02:00.
		{"Berlin: a time in the gap ticks after it", "30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", []string{"2026-03-29 01:00", "2026-03-30 00:30"}},
		{"Berlin: several times in the gap tick once", "0,15,30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", []string{"2026-03-29 01:00", "2026-03-30 00:00"}},
		{"Berlin: a time in the gap and its end tick once", "0 2,3 * * *", "Europe/Berlin", "2026-03-28 12:00", []string{"2026-03-29 01:00", "2026-03-30 00:00", "2026-03-30 01:00"}},
		{"Berlin: from within the gap's moment", "30 2 * * *", "Europe/Berlin", "2026-03-29 01:00", []string{"2026-03-30 00:30"}},
		{"Berlin: a time that comes twice ticks once", "30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", []string{"2026-10-25 00:30", "2026-10-26 01:30"}},
		{"Berlin: from between the two", "30 2 * * *", "Europe/Berlin", "2026-10-25 01:10", []string{"2026-10-26 01:30"}},
		{"Berlin: minutes with steps in an hour that comes twice", "*/30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", []string{"2026-10-25 00:00", "2026-10-25 00:30", "2026-10-26 01:00"}},
		{"Berlin: every hour is every hour", "30 * * * *", "Europe/Berlin", "2026-10-24 23:00", []string{"2026-10-24 23:30", "2026-10-25 00:30", "2026-10-25 01:30", "2026-10-25 02:30"}},
		{"Berlin: every hour, over the gap", "30 * * * *", "Europe/Berlin", "2026-03-28 23:45", []string{"2026-03-29 00:30", "2026-03-29 01:30"}},
		{"Berlin: every second hour, one of which comes twice", "15 */2 * * *", "Europe/Berlin", "2026-10-24 22:00", []string{"2026-10-24 22:15", "2026-10-25 00:15", "2026-10-25 01:15", "2026-10-25 03:15"}},
		{"Berlin: every second hour, one of which is left out", "15 */2 * * *", "Europe/Berlin", "2026-03-28 23:00", []string{"2026-03-28 23:15", "2026-03-29 02:15"}},
		{"Berlin: every minute of the long day", "* 0-23 * * *", "Europe/Berlin", "2026-10-25 00:58", []string{"2026-10-25 00:59", "2026-10-25 01:00", "2026-10-25 01:01"}},

		// New York: 8 March 2026, 02:00 is 03:00; 1 November 2026, 02:00 is 01:00.
		{"New York: spring", "30 2 * * *", "America/New_York", "2026-03-08 00:00", []string{"2026-03-08 07:00", "2026-03-09 06:30"}},
		{"New York: autumn", "30 1 * * *", "America/New_York", "2026-11-01 00:00", []string{"2026-11-01 05:30", "2026-11-02 06:30"}},

		// Sydney: 5 April 2026, 03:00 is 02:00; 4 October 2026, 02:00 is 03:00.
		{"Sydney: autumn in April", "30 2 * * *", "Australia/Sydney", "2026-04-04 00:00", []string{"2026-04-04 15:30", "2026-04-05 16:30"}},
		{"Sydney: spring in October", "30 2 * * *", "Australia/Sydney", "2026-10-03 00:00", []string{"2026-10-03 16:00", "2026-10-04 15:30"}},

		// Lord Howe: half an hour. 5 April 2026, 02:00 is 01:30; 4 October, 02:00 is 02:30.
		{"Lord Howe: the gap is half an hour", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03 00:00", []string{"2026-10-03 15:30", "2026-10-04 15:15"}},
		{"Lord Howe: half an hour comes twice", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04 00:00", []string{"2026-04-04 14:45", "2026-04-05 15:15"}},
		{"Lord Howe: and once in its other half", "15 1 * * *", "Australia/Lord_Howe", "2026-04-04 00:00", []string{"2026-04-04 14:15", "2026-04-05 14:45"}},

		// São Paulo had no midnight on 4 November 2018; Samoa no 30 December 2011.
		{"São Paulo: a day without its midnight", "@daily", "America/Sao_Paulo", "2018-11-03 12:00", []string{"2018-11-04 03:00", "2018-11-05 02:00"}},
		{"Samoa: a day that was left out", "0 9 * * *", "Pacific/Apia", "2011-12-29 00:00", []string{"2011-12-29 19:00", "2011-12-30 10:00", "2011-12-30 19:00"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tick := at(t, tt.after)
			for i, want := range tt.want {
				next, err := durable.Cron(tt.spec).Next(tick, tt.zone)
				if err != nil {
					t.Fatal(err)
				}
				if !next.Equal(at(t, want)) || next.Location() != time.UTC {
					t.Fatalf("tick %d of %q is %v, not %v", i, tt.spec, next, want)
				}
				tick = next
			}
		})
	}
}

func TestBadTimingIsRefused(t *testing.T) {
	tests := []struct {
		name       string
		timing     durable.Timing
		zone, want string
	}{
		{"nothing", durable.Timing{}, "", "empty"},
		{"a day that is not", durable.Cron("0 0 30 2 *"), "", `"0 0 30 2 *": there is no such day`},
		{"days that are not", durable.Cron("0 0 31 2,4,6,9,11 *"), "", "there is no such day"},
		{"four fields", durable.Cron("0 0 1 *"), "", "found 4"},
		{"out of range", durable.Cron("61 * * * *"), "", "61"},
		{"Sunday as 7", durable.Cron("0 0 * * 7"), "", "Sunday is 0"},
		{"an empty list", durable.Cron(", * * * *"), "", "a field is empty"},
		{"a zone in it", durable.Cron("CRON_TZ=UTC 0 9 * * *"), "", "set apart"},
		{"a zone in it and no more", durable.Cron("TZ=UTC"), "", "set apart"},
		{"an unknown descriptor", durable.Cron("@reboot"), "", "@reboot"},
		{"a bad interval", durable.Cron("@every often"), "", "duration"},
		{"too short an interval", durable.Interval(500 * time.Millisecond), "", "whole seconds"},
		{"a fraction in an interval", durable.Interval(1500 * time.Millisecond), "", "whole seconds"},
		{"a negative interval", durable.Interval(-time.Hour), "", "whole seconds"},
		{"an endless interval", durable.Interval(1 << 62), "", "ten years"},
		{"an unknown zone", durable.Cron("@daily"), "Mars/Olympus", `"Mars/Olympus"`},
		{"the machine's zone", durable.Cron("@daily"), "Local", "another machine"},
		{"a very long one", durable.Cron(strings.Repeat("1,", 300) + "1 * * * *"), "", "longer than 256"},
		{"no text", durable.Cron("\x00 * * * *"), "", "no text"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			next, err := tt.timing.Next(time.Now(), tt.zone)
			if err == nil {
				t.Fatalf("%v is accepted and ticks at %v", tt.timing, next)
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "durable: ") {
				t.Fatalf("the error is %q, without %q", err, tt.want)
			}
		})
	}
}

// field is a field of a cron expression with the values it means.
type field struct {
	text string
	has  map[int]bool
	star bool
}

func drawField(t *rapid.T, name string, low, high int) field {
	f := field{has: map[int]bool{}}
	fill := func(from, to, step int) {
		for n := from; n <= to; n += step {
			f.has[n] = true
		}
	}
	number := rapid.IntRange(low, high)
	switch rapid.IntRange(0, 5).Draw(t, name) {
	case 0, 1:
		f.text, f.star = "*", true
		fill(low, high, 1)
	case 2:
		n := number.Draw(t, name+" number")
		f.text = strconv.Itoa(n)
		fill(n, n, 1)
	case 3:
		from := number.Draw(t, name+" from")
		to := rapid.IntRange(from, high).Draw(t, name+" to")
		f.text = fmt.Sprintf("%d-%d", from, to)
		fill(from, to, 1)
	case 4:
		var parts []string
		for _, n := range rapid.SliceOfN(number, 1, 4).Draw(t, name+" list") {
			parts = append(parts, strconv.Itoa(n))
			fill(n, n, 1)
		}
		f.text = strings.Join(parts, ",")
	case 5:
		step := rapid.IntRange(2, 12).Draw(t, name+" step")
		f.text = fmt.Sprintf("*/%d", step)
		fill(low, high, step)
	}
	return f
}

// TestTicksAgainstSlowClock compares ticks around changes of clocks with those
// of somebody who looks at the clock each minute and remembers the latest time
// that it has shown.
func TestTicksAgainstSlowClock(t *testing.T) {
	zones := []string{
		"UTC", "Europe/Berlin", "Europe/Dublin", "America/New_York", "America/St_Johns", "America/Havana", "America/Sao_Paulo",
		"Australia/Sydney", "Australia/Lord_Howe", "Africa/Casablanca", "Africa/Cairo", "Asia/Tehran", "Asia/Gaza", "Asia/Kathmandu",
		"Pacific/Apia", "Pacific/Chatham", "Antarctica/Troll",
	}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom(zones).Draw(t, "zone")
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		minute, hour := drawField(t, "minute", 0, 59), drawField(t, "hour", 0, 23)
		day, weekday := drawField(t, "day", 1, 31), drawField(t, "weekday", 0, 6)
		spec := fmt.Sprintf("%s %s %s * %s", minute.text, hour.text, day.text, weekday.text)
		matches := func(shown time.Time) bool {
			d, w := day.has[shown.Day()], weekday.has[int(shown.Weekday())]
			today := d && w
			if !day.star && !weekday.star {
				today = d || w
			}
			return today && hour.has[shown.Hour()] && minute.has[shown.Minute()]
		}
		anyHour := strings.ContainsAny(hour.text, "*/") || len(hour.has) == 24

		// Begin half a day before a change, or before any moment.
		begin := time.Unix(rapid.Int64Range(1_200_000_000, 2_200_000_000).Draw(t, "moment"), 0)
		if _, change := begin.In(zone).ZoneBounds(); !change.IsZero() {
			begin = change
		}
		begin = begin.UTC().Truncate(time.Minute).Add(-12 * time.Hour)
		end := begin.Add(37 * time.Hour)

		shows := func(moment time.Time) time.Time {
			l := moment.In(zone)
			return time.Date(l.Year(), l.Month(), l.Day(), l.Hour(), l.Minute(), 0, 0, time.UTC)
		}
		var want []time.Time
		latest := shows(begin)
		for moment := begin.Add(time.Minute); !moment.After(end); moment = moment.Add(time.Minute) {
			shown := shows(moment)
			ticks := anyHour && matches(shown)
			for ; latest.Before(shown); latest = latest.Add(time.Minute) {
				ticks = ticks || !anyHour && matches(latest.Add(time.Minute))
			}
			if ticks {
				want = append(want, moment)
			}
		}

		var got []time.Time
		tick := begin
		for {
			tick, err = durable.Cron(spec).Next(tick, name)
			if err != nil {
				t.Fatal(err)
			}
			if tick.After(end) {
				break
			}
			got = append(got, tick)
			if len(got) > len(want) {
				break
			}
		}
		if !slices.EqualFunc(got, want, time.Time.Equal) {
			t.Fatalf("%q in %s from %v: ticks are\n%v, not\n%v", spec, name, begin, got, want)
		}
	})
}

func FuzzTiming(f *testing.F) {
	for _, spec := range []string{
		"* * * * *", "0 9 * * mon-fri", "*/15 0-6/2 1,15 jan-mar ?", "0 0 29 2 *", "0 0 30 2 *", "5 4 3 2 1 0", "@daily", "@every 1h30m",
		"TZ=UTC", "CRON_TZ=", "@", ",,,", "*/0 * * * *", "1-/ * * * *", "0 0 31 4 */9",
	} {
		for _, zone := range []string{"", "Europe/Berlin", "Australia/Lord_Howe", "../etc/passwd"} {
			f.Add(spec, zone, int64(1_790_000_000))
		}
	}
	f.Fuzz(func(t *testing.T, spec, zone string, unix int64) {
		after := time.Unix(unix%4_000_000_000, 0)
		tick, err := durable.Cron(spec).Next(after, zone)
		if err != nil {
			return
		}
		if !tick.After(after) || tick.Nanosecond() != 0 || tick.Location() != time.UTC {
			t.Fatalf("%q in %q after %v ticks at %v", spec, zone, after, tick)
		}
		if again, _ := durable.Cron(spec).Next(tick.Add(-time.Second), zone); !again.Equal(tick) {
			t.Fatalf("%q in %q ticks at %v, and from a second before at %v", spec, zone, tick, again)
		}
	})
}
