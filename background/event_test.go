package background_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/background"
)

func TestRequestIDs(t *testing.T) {
	for _, c := range []struct {
		header string
		taken  bool
	}{
		{"0193ab-CD.ef_1:2/3+4=", true}, {strings.Repeat("x", 128), true},
		{strings.Repeat("x", 129), false}, {"a b", false}, {"a\nb", false}, {"é", false}, {"<b>", false}, {"", false},
	} {
		req := httptest.NewRequest("GET", "/", nil)
		req.Header["X-Request-Id"] = []string{c.header}
		seen := &events{}
		var inHandler, inTask string
		serveRequest(t, newRunner(t, background.Config{OnEvent: seen.add}), req, func(w http.ResponseWriter, r *http.Request) {
			inHandler = background.RequestID(r.Context())
			background.From(r.Context()).Add("x", func(ctx context.Context) error { inTask = background.RequestID(ctx); return nil })
		})
		if (inHandler == c.header) != c.taken && c.header != "" || len(inHandler) < 16 && !c.taken {
			t.Errorf("header %q gave the id %q", c.header, inHandler)
		}
		if e := of[background.TaskFinished](seen); inTask != inHandler || e[0].RequestID != inHandler {
			t.Errorf("handler %q, task %q, event %q", inHandler, inTask, e[0].RequestID)
		}
	}
	mine := newRunner(t, background.Config{RequestID: func(r *http.Request) string { return r.URL.Path }})
	serve(t, mine, func(w http.ResponseWriter, r *http.Request) {
		if id := background.RequestID(r.Context()); id != "/" {
			t.Errorf("got %q", id)
		}
	})
}

func TestAddOutsideOfRequests(t *testing.T) {
	seen := &events{}
	r := newRunner(t, background.Config{OnEvent: seen.add})
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key("a"), "value"))
	cancel()
	got := make(chan string)
	add := func(ctx context.Context, f func(context.Context)) {
		if err := r.Add(ctx, background.Task{Name: "tick", Run: func(ctx context.Context) error { f(ctx); return nil }}); err != nil {
			t.Fatal(err)
		}
	}
	add(ctx, func(ctx context.Context) { got <- fmt.Sprint(ctx.Value(key("a")), ctx.Err()) })
	if s := wait(t, got, "the task"); s != "value<nil>" {
		t.Errorf("got %s", s)
	}
	serve(t, r, func(w http.ResponseWriter, req *http.Request) {
		add(req.Context(), func(ctx context.Context) { // at once, not after the response
			got <- background.RequestID(ctx)
			background.From(ctx).Add("tock", func(context.Context) error { got <- "tock"; return nil })
		})
		if id := wait(t, got, "the task"); id != background.RequestID(req.Context()) {
			t.Errorf("got id %q", id)
		}
		wait(t, got, "the task that it added")
	})
}

func TestEventsTellNamesAndTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &events{}
		r := newRunner(t, background.Config{OnEvent: seen.add, Lanes: map[string]background.Lane{"mail": {}}})
		nap := func(context.Context) error { time.Sleep(time.Second); return nil }
		serve(t, r, func(w http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).AddTask(
				background.Task{Name: "a", Run: nap}, background.Task{Name: "b", Run: nap, Lane: "mail"})
			time.Sleep(time.Minute) // the handler's time does not count
		})
		got := of[background.TaskFinished](seen)
		if len(got) != 2 || got[0].RequestID == "" || got[0].RequestID != got[1].RequestID {
			t.Fatalf("got %+v", got)
		}
		for i := range got {
			got[i].RequestID = ""
		}
		want := []background.TaskFinished{
			{Info: background.Info{Name: "a", Lane: "default"}, Took: time.Second},
			{Info: background.Info{Name: "b", Lane: "mail"}, Took: time.Second, Waited: time.Second},
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
	})
}

func TestNewNamesWhatIsWrong(t *testing.T) {
	for want, cfg := range map[string]background.Config{
		`Lanes has a lane without a name`: {Lanes: map[string]background.Lane{"": {}}},
		`Lanes["a"].Running is -1`:        {Lanes: map[string]background.Lane{"a": {Running: -1}}},
		`Lanes["a"].Waiting is -2`:        {Lanes: map[string]background.Lane{"a": {Waiting: -2}}},
		`Grace is -1s`:                    {Grace: -time.Second},
	} {
		if _, err := background.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// A hook runs where other tasks wait for their turn: its panic must not take
// them, or the process, with it.
func TestAPanickingHookIsLoggedAndStopsNothing(t *testing.T) {
	var log syncBuffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)

	r := newRunner(t, background.Config{OnEvent: func(background.Event) { panic("event hook") }})
	var ran ledger
	ended := make(chan string, 1)
	serve(t, r, func(w http.ResponseWriter, req *http.Request) {
		tasks := background.From(req.Context())
		tasks.AddTask(ran.task("a"), ran.task("b"))
		tasks.OnEnd(func() { panic("end hook") })
		tasks.OnEnd(func() { ended <- "ended" })
	})
	wait(t, ended, "the second hook")
	ran.want(t, "a", "b")
	for _, text := range []string{"OnEvent panicked", "event hook", "OnEnd panicked", "end hook", "event_test.go"} {
		if !strings.Contains(log.String(), text) {
			t.Errorf("the log does not have %q:\n%s", text, log.String())
		}
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
