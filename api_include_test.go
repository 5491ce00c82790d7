package wake_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/lifespan"
	"github.com/wake-go/wake/waketest"
)

// A part is the state of an included router.
type part struct {
	name string
	*world
}

var partNoted = wake.Define("part_noted", func(ctx context.Context, p *part, what string) error {
	if from := wake.From[*part](ctx); from.State != p {
		p.note("another state")
	}
	p.note(p.name + " " + what)
	return nil
})

// newPart makes a router that notes where its state is found.
func newPart() *wake.Router[*part] {
	r := wake.NewRouter[*part]()
	r.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			p := wake.From[*part](req.Context()).State
			p.note(p.name + " middleware")
			next.ServeHTTP(w, req)
		})
	})
	wake.Post(r, "/do", func(_ context.Context, _ *none, c wake.Call[*part]) (string, error) {
		c.Tasks.Add(partNoted.With("task"))
		return c.State.name, nil
	})
	r.Handle("GET /plain", http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c := wake.From[*part](req.Context())
		c.Tasks.Add(partNoted.With("plain"))
		_, _ = w.Write([]byte(c.State.name))
	}))
	r.Tasks(partNoted)
	return r
}

func TestAnIncludedRouterHasAStateOfItsOwn(t *testing.T) {
	app, w := newWorld()
	p := &part{"users", w}
	wake.Include(app, "/users", newPart(), func(*world) *part { return p })
	client := waketest.Start(t, app)
	if res := client.Post("/users/do", nil); string(res.Body) != "\"users\"\n" {
		t.Errorf("operation: %v", res)
	}
	if res := client.Get("/users/plain"); string(res.Body) != "users" {
		t.Errorf("handler: %v", res)
	}
	problemOf(t, client.Post("/do", nil), http.StatusNotFound)
	w.expect(t, "users middleware", "users task", "users middleware", "users plain")
}

func TestARouterIsIncludedTwiceWithTwoStates(t *testing.T) {
	app, w := newWorld()
	router := newPart()
	a, b := &part{"a", w}, &part{"b", w}
	wake.Include(app, "/a", router, func(*world) *part { return a })
	wake.Include(app, "/b", router, func(*world) *part { return b })
	client := waketest.Start(t, app)
	client.Post("/a/do", nil)
	client.Post("/b/do", nil)
	w.expect(t, "a middleware", "a task", "b middleware", "b task")
}

func TestRoutersNestAndTheirMiddlewareGoesFromOutsideIn(t *testing.T) {
	app, w := newWorld()
	mark := func(name string) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				w.note(name)
				next.ServeHTTP(rw, r)
			})
		}
	}
	app.Use(mark("app 1"), mark("app 2"))
	app.Use(mark("app 3"))
	middle := wake.NewRouter[*part]()
	wake.Include(app, "/v1", middle, func(w *world) *part { return &part{"middle", w} })
	inner := wake.NewRouter[*world]()
	wake.Include(middle, "/deep", inner, func(p *part) *world { return p.world })
	middle.Use(mark("middle"))
	inner.Use(mark("inner"))
	wake.Post(inner, "/x", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(noted.With("task"))
		return none{}, nil
	})
	expectStatus(t, waketest.Start(t, app).Post("/v1/deep/x", nil), http.StatusNoContent)
	w.expect(t, "app 1", "app 2", "app 3", "middle", "inner", "task")
}

var partKind = wake.Declare[string]("part_kind")

// A job that is added with one state runs with that of the router whose task
// it is.
func TestATaskOfAnIncludedRouterIsAddedFromOutsideIt(t *testing.T) {
	app, w := newWorld()
	p := &part{"part", w}
	router := wake.NewRouter[*part]()
	router.Tasks(wake.Bind(partKind, func(ctx context.Context, got *part, what string) error {
		if got != p || wake.From[*part](ctx).State != p {
			got.note("another state")
		}
		got.note(what)
		return nil
	}))
	wake.Include(app, "/part", router, func(*world) *part { return p })
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(wake.JobOf[*world](partKind, "done"))
		return none{}, nil
	})
	expectStatus(t, waketest.Start(t, app).Post("/", nil), http.StatusNoContent)
	w.expect(t, "done")
}

func TestATaskOfAnotherPackageIsProjected(t *testing.T) {
	app, w := newWorld()
	p := &part{"projected", w}
	projected := wake.Project(partNoted, func(*world) *part { return p })
	app.Tasks(projected)
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(projected.With("task"))
		return none{}, nil
	})
	expectStatus(t, waketest.Start(t, app).Post("/", nil), http.StatusNoContent)
	w.expect(t, "projected task")
}

func TestMiddlewareOfAMountedApplicationRunsOnceAndInside(t *testing.T) {
	var outerRuns, innerRuns atomic.Int32
	count := func(n *atomic.Int32) wake.Option {
		return wake.Middleware(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n.Add(1)
				next.ServeHTTP(w, r)
			})
		})
	}
	inner, _ := newWorld(count(&innerRuns))
	wake.Get(inner, "/x", func(context.Context, *none, wake.Call[*world]) (none, error) { return none{}, nil })
	outer, _ := newWorld(count(&outerRuns))
	wake.Mount(outer, "/inner", inner)
	expectStatus(t, waketest.Start(t, outer).Get("/inner/x"), http.StatusNoContent)
	if outerRuns.Load() != 1 || innerRuns.Load() != 1 {
		t.Errorf("the outer middleware ran %d times, the inner one %d times, want once each", outerRuns.Load(), innerRuns.Load())
	}
}

func TestAMountedApplicationHasTasksLimitsAndAPage(t *testing.T) {
	inner, w := newWorld()
	type input struct{ RawBody []byte }
	wake.Post(inner, "/big", func(_ context.Context, in *input, c wake.Call[*world]) (int, error) {
		c.Tasks.Add(noted.With("inner task"))
		return len(in.RawBody), nil
	}, wake.BodyLimit(2<<20))
	wake.Post(inner, "/fails", func(_ context.Context, _ *none, c wake.Call[*world]) (int, error) {
		c.Tasks.Add(noted.With("never"))
		return 0, wake.Errorf(http.StatusConflict, "no")
	})
	outer := wake.New("Outer", "1.0", lifespan.Fixed(1))
	wake.Mount(outer, "/inner", inner)
	client := waketest.Start(t, outer)
	if res := client.Post("/inner/big", strings.Repeat("x", 3<<19)); string(res.Body) != "1572864\n" {
		t.Errorf("a body below the operation's own limit: %v", res)
	}
	problemOf(t, client.Post("/inner/big", strings.Repeat("x", 3<<20)), http.StatusRequestEntityTooLarge)
	problemOf(t, client.Post("/inner/fails", nil), http.StatusConflict)
	problemOf(t, client.Get("/inner/nothing"), http.StatusNotFound)
	problemOf(t, client.Get("/inner/big"), http.StatusMethodNotAllowed)
	if res := client.Get("/inner/openapi.json"); res.Status != http.StatusOK || !strings.Contains(res.String(), `"/big"`) {
		t.Errorf("the inner document: %v", res)
	}
	w.expect(t, "inner task")
}

func TestAMountedApplicationSeesTheDrainAndCanRunAlone(t *testing.T) {
	inner := wake.New("Inner", "1.0", lifespan.Fixed(1))
	started := make(chan struct{}, 1)
	wake.Get(inner, "/wait", func(ctx context.Context, _ *none, _ wake.Call[int]) (string, error) {
		started <- struct{}{}
		<-wake.Draining(ctx)
		return "drained", nil
	})
	outer := wake.New("Outer", "1.0", lifespan.Fixed(1))
	wake.Mount(outer, "/inner", inner)
	client := waketest.Start(t, outer)
	answers := make(chan *waketest.Response, 1)
	go func() { answers <- client.Get("/inner/wait") }()
	wait(t, started, "the request")
	if err := inner.Run(t.Context(), quiet, wake.Addr("127.0.0.1:0"), wake.AdminAddr("off")); err == nil || !strings.Contains(err.Error(), "running already") {
		t.Errorf("it runs twice: %v", err)
	}
	if err := client.Stop(); err != nil {
		t.Error(err)
	}
	if res := wait(t, answers, "the answer"); string(res.Body) != "\"drained\"\n" {
		t.Errorf("got %v", res)
	}
	if err := waketest.Start(t, inner).Stop(); err != nil {
		t.Errorf("alone: %v", err)
	}
}
