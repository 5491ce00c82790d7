package wake

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/lifespan"
)

// An Option configures an application. [Main] lets flags and the environment
// override the addresses, the drain deadline, the queue and the lease.
type Option func(*config)

type config struct {
	addr, admin   string
	adminChosen   bool
	startTimeout  time.Duration
	drainTimeout  time.Duration
	drainDelay    time.Duration
	stopTimeout   time.Duration
	grace         time.Duration
	headerTimeout time.Duration
	bodyTimeout   time.Duration
	writeTimeout  time.Duration
	idleTimeout   time.Duration
	bodyLimit     int64
	headerLimit   int
	background    background.Config
	logger        *slog.Logger
	onEvent       func(lifespan.Event)
	onTask        func(background.Event)
	middleware    []func(http.Handler) http.Handler
	signals       []os.Signal
	listeners     []net.Listener
	servers       []func(*http.Server)
	schemes       map[string]*huma.SecurityScheme
	description   string

	role      ProcessRole
	openStore func(context.Context) (durable.Store, error) // nil: no queue
	queue     durable.QueueConfig
	engine    durable.EngineConfig

	onQueueEvent []func(durable.Event)
}

func defaultConfig() config {
	return config{
		addr:          "127.0.0.1:8000",
		admin:         "127.0.0.1:8001",
		startTimeout:  time.Minute,
		drainTimeout:  30 * time.Second,
		stopTimeout:   10 * time.Second,
		grace:         2 * time.Second,
		headerTimeout: 5 * time.Second,
		bodyTimeout:   30 * time.Second,
		writeTimeout:  2 * time.Minute,
		idleTimeout:   time.Minute,
		bodyLimit:     1 << 20,
		headerLimit:   64 << 10,
		schemes:       map[string]*huma.SecurityScheme{},
		role:          RoleServe,
	}
}

func (c *config) validate() error {
	for _, d := range []struct {
		option string
		value  time.Duration
	}{
		{"StartTimeout", c.startTimeout}, {"StopTimeout", c.stopTimeout}, {"Grace", c.grace},
		{"HeaderTimeout", c.headerTimeout}, {"BodyTimeout", c.bodyTimeout},
		{"WriteTimeout", c.writeTimeout}, {"IdleTimeout", c.idleTimeout}, {"DrainTimeout", c.drainTimeout},
	} {
		if d.value <= 0 {
			return fmt.Errorf("wake: %s is %v; it must be positive: a server without this limit can be held up by one client", d.option, d.value)
		}
	}
	switch {
	case c.drainDelay < 0:
		return fmt.Errorf("wake: DrainDelay is %v; it must not be negative", c.drainDelay)
	case c.drainDelay >= c.drainTimeout:
		return fmt.Errorf("wake: DrainDelay (%v) must be shorter than DrainTimeout (%v), which it is part of", c.drainDelay, c.drainTimeout)
	case c.background.Grace > c.grace:
		return fmt.Errorf("wake: the Grace of Background is %v; it must not be longer than Grace (%v): tasks would be left behind without a report", c.background.Grace, c.grace)
	case c.bodyLimit <= 0:
		return fmt.Errorf("wake: BodyLimit is %d; it must be a positive number of bytes", c.bodyLimit)
	case c.headerLimit <= 0:
		return fmt.Errorf("wake: HeaderLimit is %d; it must be a positive number of bytes", c.headerLimit)
	}
	return nil
}

// Addr sets the address to serve on. Defaults to "127.0.0.1:8000".
func Addr(addr string) Option { return func(c *config) { c.addr = addr } }

// AdminAddr sets the address of the admin listener: health and status for
// people and probes on the same machine. It must be a loopback address, or
// "off". Defaults to "127.0.0.1:8001"; if that default is taken, the
// application runs without it.
func AdminAddr(addr string) Option {
	return func(c *config) { c.admin, c.adminChosen = addr, true }
}

// StartTimeout limits set-up. Defaults to 1 minute.
func StartTimeout(d time.Duration) Option { return func(c *config) { c.startTimeout = d } }

// DrainTimeout limits the time from the request to stop until the contexts of
// unfinished requests and tasks are cancelled. Defaults to 30 seconds.
func DrainTimeout(d time.Duration) Option { return func(c *config) { c.drainTimeout = d } }

// DrainDelay keeps the listeners open for a while after readiness has turned
// false, so that load balancers notice. It is part of DrainTimeout.
// Defaults to 0.
func DrainDelay(d time.Duration) Option { return func(c *config) { c.drainDelay = d } }

// StopTimeout limits clean-up. Defaults to 10 seconds.
func StopTimeout(d time.Duration) Option { return func(c *config) { c.stopTimeout = d } }

// Grace is how long work whose context has been cancelled may take to return
// before it is reported and left behind. Defaults to 2 seconds.
func Grace(d time.Duration) Option { return func(c *config) { c.grace = d } }

// HeaderTimeout limits the reading of a request's header. Defaults to 5 seconds.
func HeaderTimeout(d time.Duration) Option { return func(c *config) { c.headerTimeout = d } }

// BodyTimeout limits the reading of a request's body, from the first read.
// Defaults to 30 seconds.
func BodyTimeout(d time.Duration) Option { return func(c *config) { c.bodyTimeout = d } }

// WriteTimeout limits the time from the end of a request's header to the end
// of its response, other than for a [Stream], whose limit is for each event.
// Defaults to 2 minutes.
func WriteTimeout(d time.Duration) Option { return func(c *config) { c.writeTimeout = d } }

// IdleTimeout limits how long a connection may wait for its next request.
// Defaults to 1 minute.
func IdleTimeout(d time.Duration) Option { return func(c *config) { c.idleTimeout = d } }

// DefaultBodyLimit limits a request's body, in bytes, multipart included.
// An operation sets its own with [BodyLimit]. Defaults to 1 MiB.
func DefaultBodyLimit(bytes int64) Option { return func(c *config) { c.bodyLimit = bytes } }

// HeaderLimit limits a request's header, in bytes. Defaults to 64 KiB.
func HeaderLimit(bytes int) Option { return func(c *config) { c.headerLimit = bytes } }

// Background configures the lanes and limits of tasks. Its OnEvent is called
// besides Wake's own logging and [OnTask].
func Background(cfg background.Config) Option { return func(c *config) { c.background = cfg } }

// Logger sets the logger. Defaults to [slog.Default] in [App.Run], and in
// [Main] to text on a terminal and JSON elsewhere.
func Logger(l *slog.Logger) Option { return func(c *config) { c.logger = l } }

// OnEvent is told of the application's phases, besides Wake's own logging. See
// [lifespan.Config] for the rules it has to follow.
func OnEvent(f func(lifespan.Event)) Option {
	return func(c *config) {
		first := c.onEvent
		c.onEvent = func(e lifespan.Event) {
			if first != nil {
				first(e)
			}
			f(e)
		}
	}
}

// HTTPServer changes the server before it starts, for what has no option:
// TLS, protocols. With a TLSConfig it serves TLS. Hooks that f replaces
// outright (ConnState, ConnContext, BaseContext) break the promises about
// tasks and draining; chain them.
func HTTPServer(f func(*http.Server)) Option {
	return func(c *config) { c.servers = append(slices.Clip(c.servers), f) }
}

// OnTask is told what happens to tasks, besides Wake's own logging. See
// [background.Config] for the rules it has to follow.
func OnTask(f func(background.Event)) Option {
	return func(c *config) {
		first := c.onTask
		c.onTask = func(e background.Event) {
			if first != nil {
				first(e)
			}
			f(e)
		}
	}
}

// Middleware adds middleware around all that the application serves, around
// that of [Router.Use], the first one outermost.
func Middleware(middleware ...func(http.Handler) http.Handler) Option {
	return func(c *config) { c.middleware = append(slices.Clip(c.middleware), middleware...) }
}

// Signals sets the signals that stop the application, see [lifespan.Config].
// Defaults to none in [App.Run], and to SIGINT and SIGTERM in [Main].
func Signals(signals ...os.Signal) Option { return func(c *config) { c.signals = signals } }

// Listener serves on l besides other listeners given this way, and instead of
// on an address. The application closes it.
func Listener(l net.Listener) Option {
	return func(c *config) { c.listeners = append(slices.Clip(c.listeners), l) }
}

// Description describes the application in its OpenAPI document, in Markdown.
func Description(text string) Option { return func(c *config) { c.description = text } }

// SecurityScheme declares a way to authenticate for the OpenAPI document;
// operations name it with [Security]. It describes, and checks nothing.
func SecurityScheme(name string, scheme huma.SecurityScheme) Option {
	return func(c *config) { c.schemes[name] = &scheme }
}
