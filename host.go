package wake

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/danielgtaylor/huma/v2"
	"github.com/felixge/httpsnoop"

	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/durable"
)

// ErrDraining is the cause with which the contexts of streams end when the
// application begins to stop, and that of requests when the drain is cut short.
var ErrDraining = errors.New("wake: the application is about to stop")

// A host is the part of an application that knows no state type: routes, limits
// and the instance that is running.
type host struct {
	cfg       config
	api       huma.API
	mux       *http.ServeMux
	missed    *http.ServeMux // the same patterns without the catch-all, asked when it is hit
	live      atomic.Pointer[instance]
	queue     atomic.Pointer[durable.Queue] // the running application's
	kinds     map[string]boundTask
	schedules []durable.Schedule
	ids       map[string]int // of operations, to how many
	json      jsonPool
	catchAll  bool // the mux has one of the user's own

	sealed sync.Once
	routes http.Handler // the mux in the application's middleware
}

// An instance is one run of an application.
type instance struct {
	host    *host
	cfg     *config // the host's, and the options of this run
	state   any     // *S
	bg      *background.Runner
	serving http.Handler // the outermost handler
	routes  http.Handler // inside what Wake does for every request
	checks  checks

	queue   *durable.Queue // nil: none
	engine  atomic.Pointer[durable.Engine]
	refused atomic.Int64               // tasks that were added to the queue too late
	lost    []background.AbandonedTask // of which nobody knows whether the queue has them

	runQueue sync.Mutex // held while App.RunQueue has an engine

	outer   *instance   // that this one is mounted in
	mounted []*instance // in this one

	// drain ends when the application begins to stop.
	drain context.Context

	inflight atomic.Int64
	idle     chan struct{} // told when a request ends during the drain
}

type instanceKey struct{}

// lifeKey finds the instance in the context of its lifespan, which belongs to
// no request: there is no state yet.
type lifeKey struct{}

// applicationOf finds the instance in any context of an application.
func applicationOf(ctx context.Context) *instance {
	if in := instanceFrom(ctx); in != nil {
		return in
	}
	in, _ := ctx.Value(lifeKey{}).(*instance)
	return in
}

func instanceFrom(ctx context.Context) *instance {
	in, _ := ctx.Value(instanceKey{}).(*instance)
	return in
}

func newHost(name, version string, cfg config) *host {
	h := &host{cfg: cfg, mux: http.NewServeMux(), missed: http.NewServeMux(), kinds: map[string]boundTask{}, ids: map[string]int{}}
	h.api = huma.NewAPI(h.humaConfig(name, version), (*adapter)(h))
	h.handleDocs(name)
	h.handle("GET /livez", http.HandlerFunc(h.serveLive))
	h.handle("GET /readyz", http.HandlerFunc(h.serveReady))
	return h
}

// humaConfig is Huma's default without the transformer that puts a link to a
// schema, made from the client's Host header, into every answer, and without
// shared maps.
func (h *host) humaConfig(name, version string) huma.Config {
	c := huma.DefaultConfig(name, version)
	c.CreateHooks = nil
	c.SchemasPath, c.DocsPath = "", ""
	c.Formats = map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat}
	c.Transformers = []huma.Transformer{h.sanitize}
	c.Info.Description = h.cfg.description
	c.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaNamer())
	c.Components.SecuritySchemes = h.cfg.schemes
	return c
}

// schemaNamer names schemas as Huma does, but puts the package's name before a
// name that a type of another package has.
func schemaNamer() func(reflect.Type, string) string {
	types := map[string]reflect.Type{}
	return func(t reflect.Type, hint string) string {
		name := huma.DefaultSchemaNamer(t, hint)
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct || t.Name() == "" {
			return name
		}
		if known, taken := types[name]; taken && known != t {
			pkg := path.Base(t.PkgPath())
			name = strings.ToUpper(pkg[:1]) + pkg[1:] + name
		}
		types[name] = t
		return name
	}
}

// handle registers a pattern with both muxes.
func (h *host) handle(pattern string, handler http.Handler) {
	h.mux.Handle(pattern, handler)
	h.missed.Handle(pattern, http.NotFoundHandler())
	h.catchAll = h.catchAll || isCatchAll(pattern)
}

// isCatchAll reports whether a pattern takes every request: "/", "/{rest...}".
func isCatchAll(pattern string) bool {
	rest, ok := strings.CutPrefix(strings.TrimSpace(pattern), "/")
	return ok && (rest == "" || strings.HasPrefix(rest, "{") && strings.HasSuffix(rest, "...}") && !strings.Contains(rest, "/"))
}

// seal completes the routes, when the application first runs.
func (h *host) seal() {
	h.sealed.Do(func() {
		if !h.catchAll {
			h.mux.HandleFunc("/", h.serveMissed)
		}
	})
}

// route answers a request that changes something and names its target by ".."
// or "//" with 404. The mux would redirect it, with its body, to a path that
// its client did not ask for.
func (h *host) route(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead && !isClean(r.URL) {
		writeProblem(w, newProblem(http.StatusNotFound, detailNotFound))
		return
	}
	h.mux.ServeHTTP(w, r)
}

// isClean reports whether a path has no segment that the mux would take out.
func isClean(u *url.URL) bool {
	if !strings.Contains(u.Path, "//") && !strings.Contains(u.Path, "/.") {
		return true
	}
	p := u.EscapedPath() + "/"
	return !strings.Contains(strings.TrimSuffix(p, "/"), "//") && !strings.Contains(p, "/./") && !strings.Contains(p, "/../")
}

// serveMissed answers what no route matches, 404 or 405, as a problem.
func (h *host) serveMissed(w http.ResponseWriter, r *http.Request) {
	status := statusRecorder{header: http.Header{}}
	handler, _ := h.missed.Handler(r)
	handler.ServeHTTP(&status, r)
	detail := detailNotFound
	if status.code == http.StatusMethodNotAllowed {
		detail = "This path does not take the method " + r.Method + "."
		w.Header()["Allow"] = status.header["Allow"]
	} else {
		status.code = http.StatusNotFound
	}
	writeProblem(w, newProblem(status.code, detail))
}

// A statusRecorder keeps an answer's status and header.
type statusRecorder struct {
	header http.Header
	code   int
}

func (s *statusRecorder) Header() http.Header         { return s.header }
func (s *statusRecorder) WriteHeader(code int)        { s.code = code }
func (s *statusRecorder) Write(p []byte) (int, error) { return len(p), nil }

// ServeHTTP serves one request of the running application.
func (h *host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	in := h.live.Load()
	if in == nil {
		switch r.URL.Path {
		case "/livez", "/readyz":
			h.mux.ServeHTTP(w, r)
		default:
			w.Header().Set("Retry-After", retryAfter)
			writeProblem(w, newProblem(http.StatusServiceUnavailable, "The application has not started, or has stopped."))
		}
		return
	}
	if instanceFrom(r.Context()) != in { // not served by the application's own server
		r = r.WithContext(context.WithValue(r.Context(), instanceKey{}, in))
	}
	in.inflight.Add(1)
	defer in.requestEnded()
	in.serving.ServeHTTP(w, r)
}

func (in *instance) requestEnded() {
	if in.inflight.Add(-1) == 0 && in.drain.Err() != nil {
		select {
		case in.idle <- struct{}{}:
		default:
		}
	}
}

// enter is the first handler inside the task list: what it does is covered by
// it, and a panic that it answers has been answered before tasks are released.
func (in *instance) enter(w http.ResponseWriter, r *http.Request) {
	if in.drain.Err() != nil {
		w.Header().Set("Connection", "close") // the client's next request goes elsewhere
	}
	limitBody(w, r, in.cfg.bodyLimit, in.cfg.bodyTimeout)
	defer in.recoverPanic(w, r, nil)
	in.routes.ServeHTTP(w, r)
}

// recovering answers a panic of a mounted handler with 500 if the handler has
// not begun to answer. Operations know that without watching the writer.
func (h *host) recovering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wrote := false
		watched := httpsnoop.Wrap(w, httpsnoop.Hooks{
			WriteHeader: func(f httpsnoop.WriteHeaderFunc) httpsnoop.WriteHeaderFunc {
				return func(code int) { wrote = true; f(code) }
			},
			Write: func(f httpsnoop.WriteFunc) httpsnoop.WriteFunc {
				return func(p []byte) (int, error) { wrote = true; return f(p) }
			},
			ReadFrom: func(f httpsnoop.ReadFromFunc) httpsnoop.ReadFromFunc {
				return func(src io.Reader) (int64, error) { wrote = true; return f(src) }
			},
			Hijack: func(f httpsnoop.HijackFunc) httpsnoop.HijackFunc {
				return func() (net.Conn, *bufio.ReadWriter, error) { wrote = true; return f() }
			},
			Flush: func(f httpsnoop.FlushFunc) httpsnoop.FlushFunc {
				return func() { wrote = true; f() }
			},
		})
		defer instanceFrom(r.Context()).recoverPanic(w, r, &wrote)
		next.ServeHTTP(watched, r)
	})
}

// recoverPanic is deferred around handlers. It logs the panic, drops the
// request's tasks and answers 500, or cuts the connection if the answer has
// begun, or if that is not known because wrote is nil.
func (in *instance) recoverPanic(w http.ResponseWriter, r *http.Request, wrote *bool) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v) // the handler wants the connection cut, not an answer
	}
	background.From(r.Context()).Discard()
	logFor(r.Context()).Error("handler panicked", "panic", v, "method", r.Method, "path", printable(r.URL), "stack", string(debug.Stack()))
	if wrote == nil || *wrote {
		panic(http.ErrAbortHandler)
	}
	model := newProblem(http.StatusInternalServerError, detailInternal)
	model.Instance = instanceOf(r.Context())
	writeProblem(w, model)
}

// printable bounds a path for the log. slog escapes what it contains.
func printable(u *url.URL) string {
	const most = 256
	p := u.EscapedPath()
	if len(p) > most {
		p = p[:most] + "…"
	}
	return p
}
