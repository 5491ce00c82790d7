package wake_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/lifespan"
	"github.com/wake-go/wake/waketest"
)

func TestAScheduleAddsATaskADay(t *testing.T) {
	stores(t, func(t *testing.T, with waketest.Option) {
		app, w := newWorld()
		app.Tasks(noted)
		nightly(app, wake.InZone("Europe/Berlin"), wake.Misfire(durable.MisfireOnce), wake.Overlap(durable.OverlapAllow), wake.Jitter(0))
		client := waketest.Start(t, app, with)
		client.RunQueue() // the schedule is known from now on
		infos, err := client.Queue().Schedules(t.Context())
		if err != nil || len(infos) != 1 || infos[0].Name != "nightly" || infos[0].Zone != "Europe/Berlin" || infos[0].Kind != "noted" {
			t.Fatalf("%+v, %v", infos, err)
		}
		for range 2 {
			client.Advance(24 * time.Hour)
			client.RunQueue()
		}
		w.expect(t, "nightly", "nightly")
	})
}

func TestAScheduleThatCannotRunFailsTheStart(t *testing.T) {
	for name, c := range map[string]struct {
		task    *wake.Task[*world, string]
		options []wake.Option
		want    string
	}{
		"no queue":      {noted, nil, `schedule "x": this application has no queue`},
		"unlisted task": {unlisted, []wake.Option{wake.OpenStore(newSQLite(t))}, `schedule "x" adds the task "unlisted", which this program cannot run: give the task to app.Tasks`},
	} {
		t.Run(name, func(t *testing.T) {
			app, _ := newWorld(c.options...)
			app.Tasks(noted)
			app.Every("x", wake.Interval(time.Hour), c.task.With("a"))
			err := app.Run(t.Context(), quiet, wake.Addr("127.0.0.1:0"), wake.AdminAddr("off"))
			if lifespan.ExitCode(err) != lifespan.ExitStart || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("Run: %v", err)
			}
		})
	}
}
