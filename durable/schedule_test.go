package durable_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/memory"
)

// Clocks in Berlin go forward from 02:00 to 03:00 on 29 March 2026: there is
// no 02:30, and the tick comes at the first moment after the gap.
func ExampleCron() {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		fmt.Println(err)
		return
	}
	tick := time.Date(2026, time.March, 27, 12, 0, 0, 0, time.UTC)
	for range 3 {
		if tick, err = durable.Cron("30 2 * * *").Next(tick, "Europe/Berlin"); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(tick.In(berlin))
	}
	// Output:
	// 2026-03-28 02:30:00 +0100 CET
	// 2026-03-29 03:00:00 +0200 CEST
	// 2026-03-30 02:30:00 +0200 CEST
}

// A report each morning in Berlin, for each morning that was missed too, and
// beside one that still runs.
func ExampleNewSchedule() {
	report := durable.Declare[string]("report")
	s := durable.NewSchedule("morning report", durable.Cron("0 9 * * mon-fri"), report.With("sales"),
		durable.InZone("Europe/Berlin"), durable.WithMisfire(durable.MisfireAll), durable.WithOverlap(durable.OverlapAllow))
	fmt.Println(s.Name, "at", s.When, "in", s.Zone)
	// Output: morning report at 0 9 * * mon-fri in Europe/Berlin
}

func TestScheduleIsChecked(t *testing.T) {
	job := tickKind.With("x")
	tests := []struct {
		name     string
		schedule durable.Schedule
		want     string
	}{
		{"no name", durable.Schedule{When: durable.Cron("@daily"), Job: job}, "needs a name"},
		{"no timing", durable.Schedule{Name: "s", Job: job}, "empty"},
		{"a bad expression", durable.Schedule{Name: "s", When: durable.Cron("0 0 30 2 *"), Job: job}, `"0 0 30 2 *": there is no such day`},
		{"a bad zone", durable.Schedule{Name: "s", When: durable.Cron("@daily"), Zone: "Mars", Job: job}, `"Mars"`},
		{"no job", durable.Schedule{Name: "s", When: durable.Cron("@daily")}, "no Job"},
		{"an empty job", durable.Schedule{Name: "s", When: durable.Cron("@daily"), Job: durable.Job{}}, "empty Job"},
		{"a bad job", durable.Schedule{Name: "s", When: durable.Cron("@daily"), Job: job.Priority(9999)}, "priority 9999"},
		{"a job at a time", durable.Schedule{Name: "s", When: durable.Cron("@daily"), Job: job.At(time.Now())}, "At("},
		{"a bad misfire", durable.Schedule{Name: "s", When: durable.Cron("@daily"), Job: job, Misfire: "twice"}, `"twice"; it must be`},
		{"a bad overlap", durable.Schedule{Name: "s", When: durable.Cron("@daily"), Job: job, Overlap: "no"}, `"no"; it must be`},
		{"a negative jitter", durable.Schedule{Name: "s", When: durable.Cron("@daily"), Job: job, Jitter: -1}, "Jitter"},
		{"a long jitter", durable.Schedule{Name: "s", When: durable.Cron("@daily"), Job: job, Jitter: 25 * time.Hour}, "Jitter"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := durable.NewQueue(memory.New(memory.Config{}))
			defer q.Close(t.Context())
			_, err := durable.EngineConfig{Schedules: []durable.Schedule{tt.schedule}}.NewEngine(q, tickKind.Run((&ran{}).run))
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "durable: ") {
				t.Errorf("the error is %v, without %q", err, tt.want)
			}
			defer func() {
				if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), tt.want) {
					t.Errorf("NewSchedule panics with %v, without %q", r, tt.want)
				}
			}()
			s := tt.schedule
			durable.NewSchedule(s.Name, s.When, s.Job, durable.InZone(s.Zone), durable.WithMisfire(s.Misfire), durable.WithOverlap(s.Overlap), durable.WithJitter(s.Jitter))
		})
	}
	t.Run("two of a name", func(t *testing.T) {
		q := durable.NewQueue(memory.New(memory.Config{}))
		defer q.Close(t.Context())
		_, err := durable.EngineConfig{Schedules: []durable.Schedule{every("s", "@daily"), every("s", "@hourly")}}.NewEngine(q, tickKind.Run((&ran{}).run))
		if err == nil || !strings.Contains(err.Error(), `two schedules are called "s"`) {
			t.Errorf("the error is %v", err)
		}
	})
}
