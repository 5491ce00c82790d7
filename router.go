package wake

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
)

// Routes is what operations are registered with: an [App] or a [Router].
type Routes[S any] interface {
	router() *Router[S]
}

// A Router is a set of routes whose handlers need the state S. Other packages
// make one with [NewRouter]; [Include] puts it into an application. Register
// routes before the application runs.
type Router[S any] struct {
	adds       []func(mount[S])
	mounts     []mount[S]
	middleware []func(http.Handler) http.Handler
	used       atomic.Bool // the middleware has been put around a request
}

// NewRouter makes a router for handlers with the state S.
func NewRouter[S any]() *Router[S] { return &Router[S]{} }

func (r *Router[S]) router() *Router[S] { return r }

// A mount is a router's place in an application.
type mount[S any] struct {
	host     *host
	prefix   string
	included bool // the state is not the application's own
	state    func(*instance) S
	around   func(http.Handler) http.Handler // a router's middleware, and its parents'
}

// add registers something in every place where the router is, and will be.
func (r *Router[S]) add(f func(mount[S])) {
	r.adds = append(r.adds, f)
	for _, m := range r.mounts {
		f(m)
	}
}

func (r *Router[S]) attach(m mount[S]) {
	r.mounts = append(r.mounts, m)
	for _, f := range r.adds {
		f(m)
	}
}

// Include puts the routes and tasks of a router under a prefix, with what
// state makes of the application's state. A router can be included several
// times. Resources of the included package are set up and cleaned up where all
// are: compose its lifespan into the application's with package lifespan.
func Include[S, T any](to Routes[S], prefix string, from Routes[T], state func(S) T) {
	if prefix != "" {
		checkPrefix("Include", prefix)
	}
	if from == nil {
		panic(fmt.Sprintf("wake: Include of %q was given a nil router", prefix))
	}
	if state == nil {
		panic(fmt.Sprintf("wake: Include of %q has no function to make the router's state from the application's", prefix))
	}
	child := from.router()
	to.router().add(func(m mount[S]) {
		project := func(in *instance) T { return state(m.state(in)) }
		child.attach(mount[T]{
			host:     m.host,
			prefix:   m.prefix + prefix,
			included: true,
			state:    project,
			around: func(h http.Handler) http.Handler {
				return m.around(withState(project, child.wrap(h)))
			},
		})
	})
}

// checkPrefix panics for a path that http.ServeMux would take for something else.
func checkPrefix(function, prefix string) {
	if !strings.HasPrefix(prefix, "/") || strings.HasSuffix(prefix, "/") {
		panic(fmt.Sprintf("wake: %s at %q; the path must begin with a slash and not end with one", function, prefix))
	}
}

// withState lets [From] find the state of an included router.
func withState[T any](project func(*instance) T, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		state := &stateOf[T]{project(instanceFrom(r.Context()))}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), stateKey{}, state)))
	})
}

type stateKey struct{}

type stateOf[S any] struct{ state S }

// wrap puts the router's middleware around h with the first request, so that
// it may be added after h was registered.
func (r *Router[S]) wrap(h http.Handler) http.Handler {
	built := sync.OnceValue(func() http.Handler {
		r.used.Store(true)
		for i := len(r.middleware) - 1; i >= 0; i-- {
			h = r.middleware[i](h)
		}
		return h
	})
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { built().ServeHTTP(w, req) })
}

// Handle mounts a handler at a pattern of [http.ServeMux], under the router's
// prefix. Its tasks, see [From] and package background, run when it returns
// without a panic.
func (r *Router[S]) Handle(pattern string, handler http.Handler) {
	if handler == nil {
		panic(fmt.Sprintf("wake: Handle(%q) has no handler", pattern))
	}
	r.add(func(m mount[S]) {
		method, path, ok := strings.Cut(pattern, " ")
		if !ok {
			method, path = "", pattern
		} else {
			method += " "
		}
		m.host.handle(method+m.prefix+strings.TrimSpace(path), m.host.recovering(m.around(handler)))
	})
}

// Use adds middleware around the router's routes, the first one outermost. An
// application's is around everything it serves. Add it before the application
// runs.
func (r *Router[S]) Use(middleware ...func(http.Handler) http.Handler) {
	for i, m := range middleware {
		if m == nil {
			panic(fmt.Sprintf("wake: Use was given a nil middleware as its argument %d", i+1))
		}
	}
	if r.used.Load() {
		panic("wake: Use was called after the first request, or on what WithLifespan has returned; add middleware to the application itself before it runs")
	}
	r.middleware = append(r.middleware, middleware...)
}

// Tasks says which tasks this program can run: those that are added to its
// queue, and those of a [Kind]. Names must be unique in an application; a panic
// names the second use.
func (r *Router[S]) Tasks(tasks ...Runnable[S]) {
	r.add(func(m mount[S]) {
		for _, t := range tasks {
			if v := reflect.ValueOf(t); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
				panic("wake: Tasks was given a nil task; is its variable declared in this package?")
			}
			m.host.addKind(bindTask(m, t))
		}
	})
}
