package wake

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/lifespan"
)

// An App is an application whose handlers share the state S. Make it with
// [New], register operations, tasks and middleware, then pass it to [Main] or
// call [App.Run]. It is an [http.Handler] while it runs.
type App[S any] struct {
	Router[S]
	host  *host
	life  lifespan.Func[S]
	inner []func(ctx context.Context, next func(context.Context) error) error // the lives of mounted applications
}

// New makes an application. Life sets up what its handlers share, yields it
// and cleans up, see package lifespan.
//
// The context that life is given has the values that [Check] and [Draining]
// need.
func New[S any](name, version string, life lifespan.Func[S], opts ...Option) *App[S] {
	if name == "" {
		panic("wake: New needs the application's name")
	}
	if life == nil {
		panic(fmt.Sprintf("wake: New(%q) needs a lifespan function; lifespan.Fixed makes one from a value", name))
	}
	cfg := defaultConfig()
	for _, set := range opts {
		set(&cfg)
	}
	a := &App[S]{host: newHost(name, version, cfg), life: life}
	a.host.routes = a.Router.wrap(http.HandlerFunc(a.host.route))
	a.attach(mount[S]{
		host:   a.host,
		state:  func(in *instance) S { return in.state.(*stateOf[S]).state },
		around: func(h http.Handler) http.Handler { return h },
	})
	return a
}

// ServeHTTP serves a request of the running application, also on a server that
// is not its own; before Run is ready and after it has ended it answers 503.
// Behind such a server, or in a recorder, tasks start when ServeHTTP returns.
func (a *App[S]) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.host.ServeHTTP(w, r) }

// Huma returns the API that operations are registered with, for what Wake has
// no word for. Operations registered with it directly take part: [From] gives
// them state and tasks, which are dropped when they answer 400 or more.
func (a *App[S]) Huma() huma.API { return a.host.api }

// Mount puts another application under a path of this one. Its lifespan runs
// inside this one's, its requests are served and drained with this one's, and
// its tasks run in this one's lanes and are added to this one's queue. Of its own options those of [Middleware]
// apply, and those for its OpenAPI document; those for serving, limits,
// draining, logging, lanes and queue are this one's.
//
// A path that does not begin with a slash, or ends with one, panics. An
// application can be mounted once.
func Mount[S, T any](to *App[S], path string, inner *App[T]) {
	checkPrefix("Mount", path)
	if inner == nil {
		panic(fmt.Sprintf("wake: Mount at %q was given a nil application", path))
	}
	to.Handle(path+"/", http.StripPrefix(path, inner.host))
	to.inner = append(to.inner, func(ctx context.Context, next func(context.Context) error) error {
		outer := applicationOf(ctx)
		return inner.lifespan()(ctx, func(state T) error {
			in := inner.host.newInstance(outer.cfg, inner.host.cfg.middleware, outer.bg, outer.drain, &stateOf[T]{state})
			in.queue, in.outer = outer.queue, outer
			outer.mounted = append(outer.mounted, in)
			if !inner.host.live.CompareAndSwap(nil, in) {
				return errRunning
			}
			defer inner.host.live.Store(nil)
			return next(ctx)
		})
	})
}

var errRunning = errors.New("wake: the application is running already")

// lifespan is the application's own with, inside it, those of the applications
// mounted in it.
func (a *App[S]) lifespan() lifespan.Func[S] {
	life := a.life
	for _, inner := range a.inner {
		life = lifespan.Then(life, func(ctx context.Context, state S, yield func(S) error) error {
			return inner(ctx, func(context.Context) error { return yield(state) })
		})
	}
	return life
}

// WithLifespan returns the same application with another lifespan, for tests
// that replace the state. Routes, tasks and middleware are a's, where more are
// to be added; only one of the two can run at a time.
func (a *App[S]) WithLifespan(life lifespan.Func[S]) *App[S] {
	b := &App[S]{host: a.host, life: life, inner: a.inner}
	b.Router.mounts, b.Router.adds = a.mounts, a.adds
	b.Router.used.Store(true) // its own middleware would be around nothing
	return b
}

// Run runs the application until ctx ends, [lifespan.Stop] is called or
// something fails. It sets up, serves, drains and cleans up; package lifespan
// tells what its error can be, and [lifespan.ExitCode] makes an exit code of
// it. Options are those of New for this run.
//
// Unlike [Main] it reads neither flags nor the environment, and handles
// signals only with the option [Signals].
//
// An application can run again after Run has returned, but not twice at once.
func (a *App[S]) Run(ctx context.Context, opts ...Option) error {
	return a.runWith(ctx, opts, func(ctx context.Context, in *instance) error {
		return (&server{in: in}).serve(ctx)
	})
}

func (a *App[S]) runWith(ctx context.Context, opts []Option, serve func(context.Context, *instance) error) error {
	cfg := a.host.cfg
	for _, set := range opts {
		set(&cfg)
	}
	if err := cfg.validate(); err != nil {
		return &lifespan.Error{Phase: lifespan.Starting, Err: err}
	}
	bg, err := background.New(cfg.backgroundConfig())
	if err != nil {
		return &lifespan.Error{Phase: lifespan.Starting, Err: err}
	}
	drain, stopDrain := context.WithCancelCause(context.Background())
	defer stopDrain(nil)
	state := &stateOf[S]{}
	in := a.host.newInstance(&cfg, cfg.middleware, bg, drain, state)
	return lifespan.Run(context.WithValue(ctx, lifeKey{}, in), withStore(in, a.lifespan()), func(ctx context.Context, yielded S) error {
		state.state = yielded
		return serve(ctx, in)
	}, lifespan.Config{
		StartTimeout: cfg.startTimeout,
		DrainTimeout: cfg.drainTimeout,
		StopTimeout:  cfg.stopTimeout,
		Grace:        cfg.grace,
		Signals:      cfg.signals,
		OnEvent: func(e lifespan.Event) {
			if p, ok := e.(lifespan.PhaseChanged); ok && p.To == lifespan.Draining {
				stopDrain(ErrDraining) // before anybody can read of it in the log
			}
			cfg.onLifespanEvent(e)
		},
	})
}

func (h *host) newInstance(cfg *config, middleware []func(http.Handler) http.Handler, bg *background.Runner, drain context.Context, state any) *instance {
	h.seal()
	in := &instance{host: h, cfg: cfg, bg: bg, drain: drain, state: state, idle: make(chan struct{}, 1)}
	in.routes = h.routes
	for _, m := range slices.Backward(middleware) {
		in.routes = m(in.routes)
	}
	in.serving = bg.Middleware(http.HandlerFunc(in.enter))
	return in
}
