package wake_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/waketest"
)

// resize is a task with progress and a result; it waits for the test.
type resizing struct {
	reported chan struct{}
	release  chan error
}

type thumb struct {
	Path string `json:"path"`
}

func newTaskPage(t *testing.T, opts ...waketest.Option) (*waketest.Client, *resizing) {
	t.Helper()
	app, _ := newWorld()
	r := &resizing{make(chan struct{}, 1), make(chan error, 1)}
	resize := wake.DefineResult("resize", func(ctx context.Context, _ *world, path string) (thumb, error) {
		durable.Progress(ctx, 1, 2, "half of it")
		r.reported <- struct{}{}
		return thumb{path}, <-r.release
	}, wake.MaxAttempts(1))
	app.Tasks(resize)
	wake.Post(app, "/pictures", func(_ context.Context, _ *none, c wake.Call[*world]) (idAnswer, error) {
		id := c.Queue.Add(resize.With("secret.png").Owner(c.Request.Header.Get("User")))
		wake.Accepted(c.Response, "/tasks/{id}", id)
		return idAnswer{id}, nil
	}, wake.Status(http.StatusAccepted))
	wake.ServeTasks(app, "/tasks/{id}", func(_ context.Context, c wake.Call[*world], task *durable.Task) bool {
		return task.Meta.Owner == c.Request.Header.Get("User")
	})
	return waketest.Start(t, app, append([]waketest.Option{inMemory(), waketest.Workers(), waketest.AllowTaskErrors()}, opts...)...), r
}

func TestAnAcceptedTaskIsShownFromItsBeginningToItsEnd(t *testing.T) {
	client, r := newTaskPage(t)
	res := client.Post("/pictures", nil, "User", "Ada")
	var accepted idAnswer
	res.JSON(&accepted)
	location := res.Header.Get("Location")
	if res.Status != http.StatusAccepted || location != "/tasks/"+accepted.ID.String() {
		t.Fatalf("%v, Location %q", res, location)
	}
	<-r.reported
	look := func() (v wake.TaskView) {
		t.Helper()
		res := client.Get(location, "User", "Ada")
		expectStatus(t, res, http.StatusOK)
		if res.Header.Get("Cache-Control") != "no-store" || strings.Contains(res.String(), "secret.png") && v.State != "succeeded" && !strings.Contains(res.String(), "succeeded") {
			t.Errorf("%v %v", res, res.Header)
		}
		res.JSON(&v)
		return v
	}
	eventually(t, "the progress", func() bool { return look().Progress != nil })
	v := look()
	if v.ID != accepted.ID.String() || v.Kind != "resize" || v.State != "running" || v.Attempt != 1 || *v.Progress != (wake.TaskProgress{Done: 1, Total: 2, Message: "half of it"}) ||
		v.Result != nil || v.FinishedAt != nil || v.CreatedAt.IsZero() {
		t.Errorf("while it runs: %+v", v)
	}
	r.release <- nil
	eventually(t, "the end", func() bool { return look().State == "succeeded" })
	if v := look(); string(v.Result) != `{"path":"secret.png"}` || v.FinishedAt == nil || v.Error != "" {
		t.Errorf("at its end: %+v", v)
	}
}

func TestWhoMayNotSeeATaskIsToldTheSameAsForOneThatDoesNotExist(t *testing.T) {
	client, r := newTaskPage(t)
	res := client.Post("/pictures", nil, "User", "Ada")
	location := res.Header.Get("Location")
	<-r.reported
	r.release <- nil
	var bodies []string
	for _, path := range []string{location, "/tasks/" + durable.NewID().String(), "/tasks/nonsense", "/tasks/" + strings.ToUpper(location[7:])} {
		for _, accept := range []string{"", "text/event-stream"} {
			res := client.Get(path, "User", "Eve", "Accept", accept)
			p := problemOf(t, res, http.StatusNotFound)
			bodies = append(bodies, p.Detail)
			if strings.Contains(res.String(), "durable") {
				t.Errorf("%v", res)
			}
		}
	}
	if len(slices.Compact(bodies)) != 1 {
		t.Errorf("the answers differ: %q", bodies)
	}
}

func TestAFailedTaskIsShownWithoutItsError(t *testing.T) {
	client, r := newTaskPage(t)
	location := client.Post("/pictures", nil).Header.Get("Location")
	<-r.reported
	r.release <- errors.New("secret reason")
	var v wake.TaskView
	eventually(t, "the end", func() bool { client.Get(location).JSON(&v); return v.State == "dead" })
	if res := client.Get(location); strings.Contains(res.String(), "secret") || v.Error == "" || v.Result != nil {
		t.Errorf("%v", res)
	}
}

// nextView reads a stream's next event.
func nextView(t *testing.T, lines *bufio.Scanner) (v wake.TaskView, ok bool) {
	t.Helper()
	for lines.Scan() {
		line := lines.Text()
		if name, found := strings.CutPrefix(line, "event: "); found && name != "task" {
			t.Errorf("event %q", name)
		}
		if data, found := strings.CutPrefix(line, "data: "); found {
			if err := json.Unmarshal([]byte(data), &v); err != nil {
				t.Fatal(err)
			}
			return v, true
		}
	}
	return v, false
}

func followTask(t *testing.T, client *waketest.Client, location string) *bufio.Scanner {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, client.URL(location), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	res, err := client.HTTP().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" || res.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%s %v", res.Status, res.Header)
	}
	return bufio.NewScanner(res.Body)
}

func TestATaskIsFollowedUntilItHasFinished(t *testing.T) {
	client, r := newTaskPage(t)
	location := client.Post("/pictures", nil).Header.Get("Location")
	lines := followTask(t, client, location)
	<-r.reported
	v, _ := nextView(t, lines)
	for v.Progress == nil {
		v, _ = nextView(t, lines)
	}
	if v.State != "running" {
		t.Errorf("%+v", v)
	}
	r.release <- nil
	for v.State == "running" {
		v, _ = nextView(t, lines)
	}
	if v.State != "succeeded" || string(v.Result) != `{"path":"secret.png"}` {
		t.Errorf("%+v", v)
	}
	if v, more := nextView(t, lines); more {
		t.Errorf("after the end there is %+v", v)
	}
}

func TestAStreamOfATaskEndsWhenTheApplicationStops(t *testing.T) {
	client, r := newTaskPage(t, waketest.With(wake.DrainTimeout(time.Minute)))
	location := client.Post("/pictures", nil).Header.Get("Location")
	lines := followTask(t, client, location)
	<-r.reported
	nextView(t, lines)
	stopped := make(chan error, 1)
	go func() { stopped <- client.Stop() }()
	for more := true; more; {
		_, more = nextView(t, lines)
	}
	r.release <- nil // the worker was waited for
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestTheTaskPageIsDocumented(t *testing.T) {
	client, _ := newTaskPage(t)
	var doc struct {
		Paths map[string]map[string]struct {
			Summary   string                     `json:"summary"`
			Responses map[string]json.RawMessage `json:"responses"`
		} `json:"paths"`
	}
	client.Get("/openapi.json").JSON(&doc)
	get := doc.Paths["/tasks/{id}"]["get"]
	if get.Summary != "Show a task" || get.Responses["404"] == nil {
		t.Errorf("%+v", get)
	}
	for _, part := range []string{"application/json", "text/event-stream", "TaskView"} {
		if !strings.Contains(string(get.Responses["200"]), part) {
			t.Errorf("the answer's documentation %s does not name %s", get.Responses["200"], part)
		}
	}
}

func TestMistakesInWhatIsAboutTheQueuePanic(t *testing.T) {
	allow := func(context.Context, wake.Call[*world], *durable.Task) bool { return true }
	for name, c := range map[string]struct {
		do   func(app *wake.App[*world])
		want []string
	}{
		"no id":       {func(a *wake.App[*world]) { wake.ServeTasks(a, "/tasks", allow) }, []string{`"/tasks"`, "{id}"}},
		"no allow":    {func(a *wake.App[*world]) { wake.ServeTasks(a, "/tasks/{id}", nil) }, []string{"/tasks/{id}", "who may see"}},
		"name twice":  {func(a *wake.App[*world]) { nightly(a); nightly(a) }, []string{`two schedules are called "nightly"`}},
		"never ticks": {func(a *wake.App[*world]) { a.Every("x", wake.Cron("0 0 30 2 *"), noted.With("a")) }, []string{"0 0 30 2 *"}},
		"unknown zone": {func(a *wake.App[*world]) {
			a.Every("x", wake.Cron("@daily"), noted.With("a"), wake.InZone("Mars/Base"))
		}, []string{"Mars/Base"}},
		"no job":        {func(a *wake.App[*world]) { a.Every("x", wake.Cron("@daily"), nil) }, []string{`"x"`, "Job"}},
		"bad attempts":  {func(*wake.App[*world]) { wake.Define("t", noteRun, wake.MaxAttempts(-1)) }, []string{`"t"`, "MaxAttempts"}},
		"bad result":    {func(*wake.App[*world]) { wake.DefineResult("t", chanResult) }, []string{`"t"`, "chan int"}},
		"no result run": {func(*wake.App[*world]) { wake.DefineResult[*world, int, int]("t", nil) }, []string{`"t"`, "no function"}},
		"nil result":    {func(*wake.App[*world]) { wake.BindResult[*world, int, int](nil, nil) }, []string{"BindResult needs"}},
	} {
		t.Run(name, func(t *testing.T) {
			app, _ := newWorld()
			expectPanic(t, func() { c.do(app) }, c.want...)
		})
	}
}

func noteRun(context.Context, *world, string) error             { return nil }
func chanResult(context.Context, *world, int) (chan int, error) { return nil, nil }
func nightly(a *wake.App[*world], opts ...wake.ScheduleOption) {
	a.Every("nightly", wake.Cron("0 3 * * *"), noted.With("nightly"), opts...)
}
