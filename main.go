package wake

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/wake-go/wake/lifespan"
)

// Main runs a program's commands and exits with its code:
//
//	serve    serve requests and run queued tasks until a signal tells to stop
//	         (the default); with --no-workers, only serve requests
//	worker   run queued tasks until a signal tells to stop
//	openapi  print the OpenAPI document; needs no set-up
//	check    set up and clean up without opening a port, and tell what fails
//
// Flags and, below them, environment variables override the options of [New]:
// --addr or WAKE_ADDR, --admin or WAKE_ADMIN, --drain or WAKE_DRAIN, --queue or WAKE_QUEUE,
// --lease or WAKE_LEASE, --log-level or WAKE_LOG_LEVEL, --log-format or
// WAKE_LOG_FORMAT. WAKE_WORKERS=off is --no-workers.
//
// SIGINT and SIGTERM stop the program as package lifespan describes. The exit
// codes are 0 for a clean stop, 1 if serving failed, 2 for a mistake on the
// command line, 3 if start-up failed, 4 if clean-up failed, and 5 if work had
// to be abandoned.
func Main[S any](app *App[S]) {
	os.Exit(run(app, os.Args, os.Stdout, os.Stderr))
}

// A commandLine is what kong parses flags and the environment into.
type commandLine struct {
	Serve   serveCommand   `cmd:"" default:"withargs" help:"Serve requests until a signal tells to stop. This is the default."`
	Worker  workerCommand  `cmd:"" help:"Run queued tasks, without serving requests, until a signal tells to stop."`
	OpenAPI openAPICommand `cmd:"" name:"openapi" help:"Print the OpenAPI document."`
	Check   checkCommand   `cmd:"" help:"Set up and clean up without opening a port."`

	LogLevel  string `env:"WAKE_LOG_LEVEL" default:"info" placeholder:"LEVEL" help:"Log what is at least: debug, info, warn or error (${env})."`
	LogFormat string `env:"WAKE_LOG_FORMAT" default:"auto" placeholder:"FORMAT" help:"Log as text or json; auto is text on a terminal (${env})."`
}

type serveCommand struct {
	Addr      string `env:"WAKE_ADDR" default:"${addr}" placeholder:"HOST:PORT" help:"Address to serve on, ${default} (${env})."`
	NoWorkers bool   `help:"Leave queued tasks to other processes (WAKE_WORKERS=off)."`
	Workers   string `env:"WAKE_WORKERS" enum:"on,off" default:"on" hidden:""` // for the environment
	processFlags
}

// processFlags are those of every command that runs until a signal.
type processFlags struct {
	Admin string        `env:"WAKE_ADMIN" placeholder:"HOST:PORT" help:"Address of the admin listener, or off; ${admin} if it is free (${env})."`
	Drain time.Duration `env:"WAKE_DRAIN" default:"${drain}" placeholder:"DURATION" help:"How long requests and tasks may take to end once a stop is asked for, ${default} (${env})."`
	Lease time.Duration `env:"WAKE_LEASE" placeholder:"DURATION" help:"How long a worker that is not heard of keeps its tasks, ${lease} (${env})."`
	queueFlag
}

// queueFlag is that of every command that opens the queue.
type queueFlag struct {
	Queue string `env:"WAKE_QUEUE" placeholder:"URL" help:"Where queued tasks are, as in sqlite:app.db (${env})."`
}

type workerCommand struct{ processFlags }

type openAPICommand struct {
	YAML bool `help:"Print YAML instead of JSON."`
}

type checkCommand struct{ queueFlag }

// program is what the commands need of an application.
type program interface {
	Run(context.Context, ...Option) error
	Work(context.Context, ...Option) error
	check(context.Context, ...Option) error
	document() (json, yaml []byte, err error)
}

// exit carries kong's wish to end the program, after --help, to run.
type exit int

func run[S any](app *App[S], args []string, stdout, stderr io.Writer) (code int) {
	defer func() {
		if v := recover(); v != nil {
			status, ok := v.(exit)
			if !ok {
				panic(v)
			}
			code = int(status)
		}
	}()
	var cli commandLine
	cfg := &app.host.cfg
	parser, err := kong.New(&cli,
		kong.Name(filepath.Base(args[0])),
		kong.Description(app.host.api.OpenAPI().Info.Title+" "+app.host.api.OpenAPI().Info.Version),
		kong.Vars{"addr": cfg.addr, "admin": cfg.admin, "drain": cfg.drainTimeout.String(), "lease": cmp.Or(cfg.engine.Lease, defaultLease).String()},
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(exit(code)) }),
		kong.UsageOnError(),
	)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return lifespan.ExitUsage
	}
	if err := ignoreEmptyVariables(parser); err != nil {
		fmt.Fprintln(stderr, err)
		return lifespan.ExitUsage
	}
	command, err := parser.Parse(args[1:])
	if err != nil {
		var parse *kong.ParseError
		if errors.As(err, &parse) {
			parser.Stdout = stderr
			_ = parse.Context.PrintUsage(true)
		}
		fmt.Fprintf(stderr, "%s: error: %v\n", filepath.Base(args[0]), err)
		return lifespan.ExitUsage
	}
	log, err := newLogger(stderr, cli.LogFormat, cli.LogLevel)
	if err != nil {
		fmt.Fprintf(stderr, "%s: error: %v\n", filepath.Base(args[0]), err)
		return lifespan.ExitUsage
	}
	if cfg.logger != nil {
		log = cfg.logger
	} else {
		slog.SetDefault(log)
	}
	return cli.execute(command.Command(), app, log, stdout, stderr)
}

// ignoreEmptyVariables takes an environment variable without a value for one
// that is not set: an empty address would be any.
func ignoreEmptyVariables(parser *kong.Kong) error {
	return kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok {
			flag.Tag.Envs = slices.DeleteFunc(flag.Tag.Envs, func(name string) bool { return os.Getenv(name) == "" })
		}
		return next(nil)
	})
}

// Validate is called by kong.
func (f *processFlags) Validate() error {
	switch {
	case f.Drain <= 0:
		return fmt.Errorf("--drain or WAKE_DRAIN is %v; it must be positive", f.Drain)
	case f.Lease < 0:
		return fmt.Errorf("--lease or WAKE_LEASE is %v; it must be positive", f.Lease)
	}
	return nil
}

// defaultLease is package durable's.
const defaultLease = 30 * time.Second

func (f *processFlags) options() []Option {
	opts := append(f.queueFlag.options(), DrainTimeout(f.Drain))
	if f.Admin != "" {
		opts = append(opts, AdminAddr(f.Admin))
	}
	if f.Lease > 0 {
		opts = append(opts, Lease(f.Lease))
	}
	return opts
}

func (f *queueFlag) options() []Option {
	if f.Queue == "" {
		return nil
	}
	return []Option{Queue(f.Queue)}
}

func (cli *commandLine) execute(command string, app program, log *slog.Logger, stdout, stderr io.Writer) int {
	opts := []Option{Logger(log), Signals(os.Interrupt, syscall.SIGTERM)}
	ctx := context.Background()
	switch command {
	case "serve":
		opts = append(append(opts, Addr(cli.Serve.Addr)), cli.Serve.options()...)
		if cli.Serve.NoWorkers || cli.Serve.Workers == "off" {
			opts = append(opts, NoWorkers())
		}
		return serve(ctx, app.Run, log, opts)
	case "worker":
		return serve(ctx, app.Work, log, append(opts, cli.Worker.options()...))
	case "check":
		opts = append(opts, cli.Check.options()...)
		if err := app.check(ctx, opts...); err != nil {
			fmt.Fprintln(stderr, err)
			return lifespan.ExitCode(err)
		}
		fmt.Fprintln(stdout, "ok: set-up and clean-up succeed")
		return lifespan.ExitOK
	}
	asJSON, asYAML, err := app.document()
	if err != nil {
		fmt.Fprintln(stderr, err)
		return lifespan.ExitServe
	}
	if cli.OpenAPI.YAML {
		asJSON = asYAML
	}
	if _, err := stdout.Write(asJSON); err != nil {
		fmt.Fprintln(stderr, err)
		return lifespan.ExitServe
	}
	return lifespan.ExitOK
}

// serve runs the application, and logs what kept it from running at all.
func serve(ctx context.Context, run func(context.Context, ...Option) error, log *slog.Logger, opts []Option) int {
	began := false
	err := run(ctx, append(opts, OnEvent(func(lifespan.Event) { began = true }))...)
	code := lifespan.ExitCode(err)
	if err != nil && !began {
		log.Error("not started", "error", err, "exit_code", code)
	}
	return code
}

// check runs set-up and clean-up with nothing between them.
func (a *App[S]) check(ctx context.Context, opts ...Option) error {
	return a.runWith(ctx, opts, func(_ context.Context, in *instance) error {
		for _, t := range in.memoryOnly() {
			in.cfg.log().Info("this task runs in memory only: it cannot be queued", "task", t.name, "reason", t.unstorable)
		}
		return in.checkQueue()
	})
}

// document returns the OpenAPI document, indented.
func (a *App[S]) document() (asJSON, asYAML []byte, err error) {
	api := a.host.api.OpenAPI()
	if asJSON, err = json.MarshalIndent(api, "", "  "); err != nil {
		return nil, nil, fmt.Errorf("encode the OpenAPI document: %w", err)
	}
	if asYAML, err = api.YAML(); err != nil {
		return nil, nil, fmt.Errorf("encode the OpenAPI document: %w", err)
	}
	return append(asJSON, '\n'), asYAML, nil
}
