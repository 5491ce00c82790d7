package wake_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/lifespan"
	"github.com/wake-go/wake/waketest"
)

// paging is not exported: its fields could not be bound.
type paging struct {
	Page int `path:"page"`
}

type embedding struct{ paging }

// A mistake in a program's wiring panics where it is made, and names the value.
func TestMistakesInRegistrationPanicAndNameTheValue(t *testing.T) {
	ok := func(context.Context, *none, wake.Call[*world]) (none, error) { return none{}, nil }
	var nilTask *wake.Task[*world, string]
	run := func(context.Context, *world, string) error { return nil }
	self := func(w *world) *world { return w }
	for name, c := range map[string]struct {
		do   func(app *wake.App[*world])
		want []string
	}{
		"no name":            {func(*wake.App[*world]) { wake.New("", "1", lifespan.Fixed(0)) }, []string{"application's name"}},
		"no lifespan":        {func(*wake.App[*world]) { wake.New[int]("A", "1", nil) }, []string{`New("A")`, "lifespan.Fixed"}},
		"nil operation":      {func(a *wake.App[*world]) { wake.Get[*world, none, none](a, "/x", nil) }, []string{"GET /x", "no function"}},
		"nil stream":         {func(a *wake.App[*world]) { wake.Stream[*world, none](a, "/x", nil) }, []string{"/x", "no function"}},
		"nil handler":        {func(a *wake.App[*world]) { a.Handle("GET /x", nil) }, []string{`"GET /x"`, "no handler"}},
		"path without slash": {func(a *wake.App[*world]) { wake.Post(a, "x", ok) }, []string{"POST x"}},
		"path cut off":       {func(a *wake.App[*world]) { wake.Get(a, "/{x", ok) }, []string{"GET /{x"}},
		"route twice":        {func(a *wake.App[*world]) { wake.Get(a, "/x", ok); wake.Get(a, "/x", ok) }, []string{"GET /x", "conflicts"}},
		"path parameter":     {func(a *wake.App[*world]) { wake.Get(a, "/{x}", listNotes) }, []string{"GET /{x}", `"text"`, "does not have"}},
		"hidden input": {func(a *wake.App[*world]) {
			wake.Get(a, "/{page}", func(context.Context, *embedding, wake.Call[*world]) (none, error) { return none{}, nil })
		}, []string{"GET /{page}", "paging", "not exported"}},
		"body limit":     {func(a *wake.App[*world]) { wake.Get(a, "/x", ok, wake.BodyLimit(0)) }, []string{"BodyLimit is 0", "positive"}},
		"security":       {func(a *wake.App[*world]) { wake.Get(a, "/x", ok, wake.Security("jwt")) }, []string{`GET /x`, `"jwt"`, "SecurityScheme"}},
		"nil middleware": {func(a *wake.App[*world]) { a.Use(nil) }, []string{"nil middleware", "argument 1"}},
		"middleware of a copy": {func(a *wake.App[*world]) {
			a.WithLifespan(lifespan.Fixed(&world{})).Use(func(h http.Handler) http.Handler { return h })
		}, []string{"Use was called", "WithLifespan"}},
		"nil task":          {func(a *wake.App[*world]) { a.Tasks(nilTask) }, []string{"nil task"}},
		"task twice":        {func(a *wake.App[*world]) { a.Tasks(noted, noted) }, []string{`two tasks are called "noted"`}},
		"task name twice":   {func(a *wake.App[*world]) { a.Tasks(noted, wake.Define("noted", run)) }, []string{`two tasks are called "noted"`}},
		"unknown lane":      {func(a *wake.App[*world]) { a.Tasks(wake.Define("t", run, wake.Lane("gpu"))) }, []string{`task "t"`, `lane "gpu"`, "Config.Lanes"}},
		"unnamed task":      {func(*wake.App[*world]) { wake.Define("", run) }, []string{"needs a name"}},
		"unnamed kind":      {func(*wake.App[*world]) { wake.Declare[int]("") }, []string{"needs a name"}},
		"nil function":      {func(*wake.App[*world]) { wake.Define[*world, string]("t", nil) }, []string{`task "t"`, "no function"}},
		"nil function of 0": {func(*wake.App[*world]) { wake.Define0[*world]("t", nil) }, []string{`task "t"`, "no function"}},
		"nil kind":          {func(*wake.App[*world]) { wake.Bind(nil, run) }, []string{"nil kind", "Declare"}},
		"nil binding":       {func(*wake.App[*world]) { wake.Bind[*world](wake.Declare[int]("k"), nil) }, []string{`"k"`, "no function"}},
		"nil projection":    {func(*wake.App[*world]) { wake.Project[*world](noted, nil) }, []string{"Project needs"}},
		"prefix without slash": {func(a *wake.App[*world]) { wake.Include(a, "x", wake.NewRouter[*world](), self) },
			[]string{`"x"`, "begin with a slash"}},
		"prefix with slash": {func(a *wake.App[*world]) { wake.Include(a, "/x/", wake.NewRouter[*world](), self) }, []string{`"/x/"`, "not end with one"}},
		"include without state": {func(a *wake.App[*world]) { wake.Include[*world, *world](a, "/x", wake.NewRouter[*world](), nil) },
			[]string{`"/x"`, "no function"}},
		"include of nil":      {func(a *wake.App[*world]) { wake.Include(a, "/x", nil, self) }, []string{`"/x"`, "nil router"}},
		"mount without slash": {func(a *wake.App[*world]) { wake.Mount(a, "x", wake.New("I", "1", lifespan.Fixed(0))) }, []string{`"x"`, "begin with a slash"}},
		"mount of nil":        {func(a *wake.App[*world]) { wake.Mount[*world, int](a, "/x", nil) }, []string{`"/x"`, "nil application"}},
	} {
		t.Run(name, func(t *testing.T) {
			app, _ := newWorld()
			expectPanic(t, func() { c.do(app) }, c.want...)
		})
	}
}

func listNotes(context.Context, *noteInput, wake.Call[*world]) (none, error) { return none{}, nil }

func TestUseAfterTheFirstRequestPanics(t *testing.T) {
	app, _ := newWorld()
	client := waketest.Start(t, app)
	client.Get("/")
	expectPanic(t, func() { app.Use(func(h http.Handler) http.Handler { return h }) }, "after the first request")
}

func TestOptionsThatCannotBeAreRefusedWithFieldAndRule(t *testing.T) {
	for name, c := range map[string]struct {
		option wake.Option
		want   []string
	}{
		"start":   {wake.StartTimeout(0), []string{"StartTimeout is 0s", "positive"}},
		"drain":   {wake.DrainTimeout(-time.Second), []string{"DrainTimeout is -1s", "positive"}},
		"delay":   {wake.DrainDelay(time.Hour), []string{"DrainDelay (1h0m0s)", "shorter than DrainTimeout (30s)"}},
		"body":    {wake.DefaultBodyLimit(-1), []string{"BodyLimit is -1", "positive"}},
		"lanes":   {wake.Background(background.Config{Lanes: map[string]background.Lane{"x": {Running: -1}}}), []string{`Lanes["x"].Running is -1`, "positive"}},
		"address": {wake.Addr("nowhere"), []string{`"nowhere"`, "--addr"}},
		"admin":   {wake.AdminAddr("nowhere"), []string{`"nowhere"`, "host:port, or off"}},
	} {
		t.Run(name, func(t *testing.T) {
			app, _ := newWorld()
			err := app.Run(t.Context(), quiet, wake.Addr("127.0.0.1:0"), c.option)
			if err == nil || lifespan.ExitCode(err) != lifespan.ExitStart {
				t.Fatalf("Run: %v", err)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not contain %q", err, part)
				}
			}
		})
	}
}

func TestAnApplicationRunsAgainButNotTwiceAtOnce(t *testing.T) {
	app, w := newWorld()
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(noted.With("ran"))
		return none{}, nil
	})
	for range 3 {
		client := waketest.Start(t, app)
		err := app.Run(t.Context(), quiet, wake.Addr("127.0.0.1:0"), wake.AdminAddr("off"))
		if err == nil || !strings.Contains(err.Error(), "running already") || lifespan.ExitCode(err) != lifespan.ExitStart {
			t.Errorf("at the same time: %v", err)
		}
		expectStatus(t, client.Post("/", nil), http.StatusNoContent)
		if err := client.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	w.expect(t, "ran", "ran", "ran")
}
