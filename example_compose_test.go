package wake_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/lifespan"
)

// A router of another package has a state of its own.
func ExampleInclude() {
	type users struct{ names []string }
	router := wake.NewRouter[*users]()
	wake.Get(router, "/", func(_ context.Context, _ *struct{}, c wake.Call[*users]) ([]string, error) {
		return c.State.names, nil
	})

	type state struct{ users *users }
	app := wake.New("Shop", "1.0", lifespan.Fixed(&state{&users{[]string{"Ada", "Bob"}}}))
	wake.Include(app, "/users", router, func(s *state) *users { return s.users })
	try(app, get("/users/"))
	// Output: 200 ["Ada","Bob"]
}

// A mounted application brings its own lifespan, which runs inside the outer one.
func ExampleMount() {
	open := func(name string) lifespan.Func[string] {
		return func(_ context.Context, yield func(string) error) error {
			fmt.Println(name, "opened")
			defer fmt.Println(name, "closed")
			return yield(name)
		}
	}
	whoami := func(_ context.Context, _ *struct{}, c wake.Call[string]) (string, error) { return c.State, nil }
	inner := wake.New("Inner", "1.0", open("inner"))
	wake.Get(inner, "/name", whoami)
	outer := wake.New("Outer", "1.0", open("outer"))
	wake.Get(outer, "/name", whoami)
	wake.Mount(outer, "/inner", inner)
	try(outer, get("/name"), get("/inner/name"))
	// Output:
	// outer opened
	// inner opened
	// 200 "outer"
	// 200 "inner"
	// inner closed
	// outer closed
}

// A stream sends server-sent events; its context ends when the client goes or
// the application stops.
func ExampleStream() {
	app := wake.New("Clock", "1.0", lifespan.Fixed(noState{}))
	type input struct {
		Last int `header:"Last-Event-ID"`
	}
	wake.Stream(app, "/count", func(ctx context.Context, in *input, c wake.StreamCall[noState]) error {
		for n := in.Last + 1; n <= 3; n++ {
			if err := c.Send(wake.Event{Name: "count", ID: fmt.Sprint(n), Data: n}); err != nil {
				return err
			}
		}
		return nil
	})
	again := get("/count")
	again.Header.Set("Last-Event-ID", "2")
	try(app, again)
	// Output:
	// 200 event: count
	// id: 3
	// data: 3
}

// Work that computes, and whose result the answer needs, goes to the lane for
// computing: other requests do not wait for it.
func ExampleOffload() {
	app := wake.New("Words", "1.0", lifespan.Fixed(noState{}))
	type input struct {
		Text string `query:"text"`
	}
	wake.Get(app, "/shout", func(ctx context.Context, in *input, _ wake.Call[noState]) (string, error) {
		return wake.Offload(ctx, func(context.Context) (string, error) { return strings.ToUpper(in.Text), nil })
	})
	try(app, get("/shout?text=hello"))
	// Output: 200 "HELLO"
}

var countdown = wake.Declare[int]("countdown")

func runCountdown(ctx context.Context, s noState, n int) error {
	fmt.Println(n)
	if n > 1 {
		wake.From[noState](ctx).Tasks.Add(wake.JobOf[noState](countdown, n-1))
	}
	return nil
}

// A task that adds itself is declared apart from its function: Go refuses a
// variable that refers to itself.
func ExampleBind() {
	app := wake.New("Rocket", "1.0", lifespan.Fixed(noState{}))
	app.Tasks(wake.Bind(countdown, runCountdown))
	wake.Post(app, "/launch", func(_ context.Context, _ *struct{}, c wake.Call[noState]) (struct{}, error) {
		c.Tasks.Add(wake.JobOf[noState](countdown, 3))
		return struct{}{}, nil
	})
	try(app, post("/launch"))
	// Unordered output:
	// 204
	// 3
	// 2
	// 1
}

// Lifespans compose: the second needs what the first has made.
func ExampleNew_lifespan() {
	type state struct{ dsn, pool string }
	settings := lifespan.Hooks(
		func(context.Context) (string, error) { return "db://example", nil },
		func(context.Context, string) error { fmt.Println("settings closed"); return nil })
	pool := func(_ context.Context, dsn string, yield func(state) error) error {
		defer fmt.Println("pool closed")
		return yield(state{dsn, "pool of " + dsn})
	}
	app := wake.New("Composed", "1.0", lifespan.Then(settings, pool))
	wake.Get(app, "/", func(_ context.Context, _ *struct{}, c wake.Call[state]) (string, error) { return c.State.pool, nil })
	try(app, get("/"))
	// Output:
	// 200 "pool of db://example"
	// pool closed
	// settings closed
}

// An ordinary handler has tasks too: they run if it returns without a panic.
func ExampleRouter_Handle() {
	app := wake.New("Mixed", "1.0", lifespan.Fixed(noState{}))
	app.Handle("POST /hook", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		background.From(r.Context()).Add("log", func(context.Context) error {
			fmt.Println("logged")
			return nil
		})
		fmt.Fprintln(w, "thanks")
	}))
	try(app, post("/hook"))
	// Unordered output:
	// 200 thanks
	// logged
}

// An error made by Errorf is shown to the client, any other one is not.
func ExampleErrorf() {
	app := wake.New("Shop", "1.0", lifespan.Fixed(noState{}))
	wake.Post(app, "/buy", func(context.Context, *struct{}, wake.Call[noState]) (struct{}, error) {
		return struct{}{}, wake.Errorf(http.StatusConflict, "sold out")
	})
	wake.Post(app, "/sell", func(context.Context, *struct{}, wake.Call[noState]) (struct{}, error) {
		return struct{}{}, errors.New("dial tcp 10.0.0.5: refused")
	})
	sell := post("/sell")
	sell.Header.Set("X-Request-Id", "r-1")
	try(app, post("/buy"), sell)
	// Output:
	// 409 {"title":"Conflict","status":409,"detail":"sold out"}
	// 500 {"title":"Internal Server Error","status":500,"detail":"The server could not answer this request. The error has been logged.","instance":"urn:request:r-1"}
}
