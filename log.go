package wake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"

	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/lifespan"
)

func (c *config) log() *slog.Logger {
	if c.logger != nil {
		return c.logger
	}
	return slog.Default()
}

// logFor is the logger for what happens in a request or one of its tasks.
func logFor(ctx context.Context) *slog.Logger {
	log := slog.Default()
	if in := applicationOf(ctx); in != nil {
		log = in.cfg.log()
	}
	id := background.RequestID(ctx)
	if id == "" {
		if task, ok := durable.InfoFrom(ctx); ok {
			id = task.Meta.RequestID
		}
	}
	return log.With("request", id)
}

// onLifespanEvent logs an event and passes it on.
func (c *config) onLifespanEvent(e lifespan.Event) {
	log := c.log()
	switch e := e.(type) {
	case lifespan.PhaseChanged:
		c.logPhase(e)
	case lifespan.PartEnded:
		if e.Err != nil {
			log.Error("part failed", "part", e.Name, "error", e.Err)
		} else {
			log.Debug("part ended", "part", e.Name)
		}
	case lifespan.SignalReceived:
		if e.Count == 1 { // the drain that it begins says why
			log.Debug(e.String())
		} else {
			log.Warn(e.String())
		}
	case lifespan.PhaseAbandoned:
		log.Error(e.String(), "stack", string(e.Stack))
	default:
		log.Warn(e.String())
	}
	if c.onEvent != nil {
		c.onEvent(e)
	}
}

// logPhase leaves out Ready, which is announced with its addresses.
func (c *config) logPhase(e lifespan.PhaseChanged) {
	log := c.log()
	switch e.To {
	case lifespan.Starting:
		log.Debug("starting")
	case lifespan.Draining:
		log.Info("draining: no new connections; requests and tasks finish", "cause", e.Cause, "limit", c.drainTimeout)
	case lifespan.Cleaning:
		log.Debug("cleaning up")
	case lifespan.Stopped:
		if e.Cause != nil {
			log.Error("stopped", "error", e.Cause, "exit_code", lifespan.ExitCode(e.Cause))
		} else {
			log.Info("stopped")
		}
	}
}

// backgroundConfig is the tasks' configuration with the log in front of the
// user's own hook.
func (c *config) backgroundConfig() background.Config {
	bg := c.background
	if bg.Grace == 0 {
		bg.Grace = c.grace
	}
	next := bg.OnEvent
	bg.FailuresOnly = next == nil && c.onTask == nil && !c.log().Enabled(context.Background(), slog.LevelDebug)
	bg.OnEvent = func(e background.Event) {
		logTask(c.log(), e)
		if next != nil {
			next(e)
		}
		if c.onTask != nil {
			c.onTask(e)
		}
	}
	return bg
}

func logTask(log *slog.Logger, e background.Event) {
	switch e := e.(type) {
	case background.TaskFinished:
		if e.Err == nil {
			if log.Enabled(context.Background(), slog.LevelDebug) {
				log.Debug("task finished", "task", e.Name, "request", e.RequestID, "waited", e.Waited, "took", e.Took)
			}
			return
		}
		attrs := []any{"task", e.Name, "request", e.RequestID, "took", e.Took, "error", e.Err}
		var p *background.PanicError
		if errors.As(e.Err, &p) {
			attrs = append(attrs, "stack", string(p.Stack))
		}
		log.Error("task failed", attrs...)
	case background.TaskRefused:
		log.Error("task refused: it will not run", "task", e.Name, "request", e.RequestID, "lane", e.Lane, "error", e.Err)
	case background.TaskDropped:
		if e.Err == nil { // the operation's own error has been dealt with
			log.Debug("task dropped: its operation failed", "task", e.Name, "request", e.RequestID)
		} else {
			log.Error("task dropped: it will not run", "task", e.Name, "request", e.RequestID, "error", e.Err)
		}
	case background.TaskAbandoned:
		if !rescuable(&e.AbandonedTask) { // see instance.rescue
			logAbandonedTask(log, &e.AbandonedTask)
		}
	}
}

func logAbandonedTask(log *slog.Logger, t *background.AbandonedTask, more ...any) {
	attrs := append([]any{"task", t.Name, "request", t.RequestID, "age", t.Age.Round(time.Millisecond), "started", t.Started}, more...)
	if t.Err != nil {
		attrs = append(attrs, "error", t.Err)
	}
	if t.Stack != "" {
		attrs = append(attrs, "stack", t.Stack)
	}
	log.Error("task abandoned", attrs...)
}

// newLogger makes the logger of a program run by Main: text with colours on a
// terminal, JSON elsewhere.
func newLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q; it must be debug, info, warn or error", level)
	}
	terminal := isTerminal(w)
	switch {
	case format == "text" || format == "auto" && terminal:
		return slog.New(tint.NewTextHandler(w, &tint.Options{Level: l, TimeFormat: time.TimeOnly, NoColor: !terminal})), nil
	case format == "json" || format == "auto":
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l, ReplaceAttr: readableDuration})), nil
	}
	return nil, fmt.Errorf("log format %q; it must be auto, text or json", format)
}

// readableDuration writes "1.5s" where JSON would have nanoseconds.
func readableDuration(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
