package durable

import (
	"context"
	"log/slog"
	"runtime/debug"
)

// announce reports a run whose outcome is settled.
func (e *Engine) announce(r *run) {
	c := &e.counters
	f := &r.finish
	if !r.counted {
		c.lost.Add(1)
		r.lose()
		e.emit(TaskLost{Info: r.info(), Move: f.Move, Err: r.err, Took: r.took})
		return
	}
	c.moves[f.Move].Add(1)
	if e.cfg.OnEvent == nil && !e.worthLogging(f.Move) {
		return
	}
	r.mu.Lock()
	cancelled := r.cancelRequested
	r.mu.Unlock()
	e.emit(TaskFinished{
		Info: r.info(), Move: f.Move, Err: r.err, Delay: f.Delay,
		Waited: r.waited, Took: r.took, CancelRequested: cancelled,
	})
}

func (e *Engine) worthLogging(m Move) bool { return m == MoveFail || m == MoveExhaust }

// emit logs an event and calls the hook, whose panics stop nothing.
func (e *Engine) emit(ev Event) {
	e.logEvent(ev)
	if e.cfg.OnEvent == nil {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			e.log.Error("EngineConfig.OnEvent panicked", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	e.cfg.OnEvent(ev)
}

func (e *Engine) logEvent(ev Event) {
	switch ev := ev.(type) {
	case TaskFinished:
		switch ev.Move {
		case MoveFail:
			e.logTask(slog.LevelWarn, "task failed and will be tried again", ev.Info, "error", ev.Err, "again_in", ev.Delay)
		case MoveExhaust:
			e.logTask(slog.LevelError, "task failed for good", ev.Info, "error", ev.Err)
		}
	case TaskLost:
		e.logTask(slog.LevelWarn, "the outcome of a task does not count: it was taken from this process or removed", ev.Info, "move", ev.Move, "error", ev.Err)
	case TaskStuck:
		e.logTask(slog.LevelError, "task does not return and was given up; its goroutine goes on", ev.Info, "took", ev.Took, "stack", ev.Stack)
	case Recovered:
		e.log.Warn("tasks of processes that died were taken back", "ready", ev.Swept.Recovered, "dead", ev.Swept.Dead, "processes", ev.Nodes)
	case LeaseLost:
		e.log.Error("the lease was lost: running tasks are cancelled, as others may run them", "error", ev.Err, "running", ev.Running)
	case CommitFailed:
		e.log.Error("the task store does not commit; outcomes are kept and tried again", "error", ev.Err)
	case StoreBack:
		e.log.Info("the task store commits again", "after", ev.After)
	}
}

func (e *Engine) logTask(level slog.Level, what string, t Info, more ...any) {
	args := []any{"kind", t.Kind, "task", t.ID, "queue", t.Queue, "attempt", t.Attempt, "max_attempts", t.MaxAttempts}
	if t.Meta.RequestID != "" {
		args = append(args, "request_id", t.Meta.RequestID)
	}
	e.log.Log(context.Background(), level, what, append(args, more...)...)
}
