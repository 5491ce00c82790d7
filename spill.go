package wake

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/durable"
)

// A requeued is the handoff of a task that may run again after it was cut
// short. It is encoded when it is added: its function, which may still run
// then, may change its argument.
type requeued struct {
	arg    any
	insert durable.Insert
}

// handoff returns what a task in memory can be queued with, nil if it cannot:
// it is no declared task, nobody would run it, or its type cannot be stored.
// For most tasks that is the argument, which costs nothing.
func (in *instance) handoff(info *taskInfo, arg any) any {
	if in.queue == nil || info.job == nil || info.unstorable != nil || !in.host.knows(info.name) {
		return nil
	}
	if info.policy.Requeue {
		if insert, err := in.queue.Encode(info.job(arg)); err == nil {
			return &requeued{arg, insert}
		}
	}
	return arg
}

// argOf returns the argument of a task that can be queued.
func argOf(handoff any) any {
	if r, ok := handoff.(*requeued); ok {
		return r.arg
	}
	return handoff
}

// rescuable reports whether a task that a drain has not finished may be queued.
func rescuable(t *background.AbandonedTask) bool {
	_, again := t.Handoff.(*requeued)
	return again || t.Handoff != nil && !t.Started
}

// insert encodes a task in memory for the queue.
func insertOf(name, requestID string, values context.Context, handoff any) (durable.Insert, error) {
	var insert durable.Insert
	var err error
	if r, ok := handoff.(*requeued); ok {
		insert = r.insert
	} else {
		in := instanceFrom(values)
		if insert, err = in.queue.Encode(in.kind(name).job(handoff)); err != nil {
			return insert, err
		}
	}
	insert.Meta.RequestID = requestID
	return insert, nil
}

// spill moves tasks in memory that have not started to the queue, in one batch.
// If that fails they run in memory, as they would without a queue.
func (in *instance) spill(cut context.Context) {
	if in.queue == nil {
		return
	}
	// The drain goes on without them for a part of its time at most.
	ctx, cancel := context.WithTimeout(cut, in.cfg.drainTimeout/4)
	defer cancel()
	err := in.bg.Withdraw(func(tasks []background.Withdrawn) error { return in.takeOver(ctx, tasks) })
	if err != nil {
		in.cfg.log().Warn("tasks stay in memory: the queue did not take them", "error", err)
	}
}

func (in *instance) takeOver(ctx context.Context, tasks []background.Withdrawn) error {
	var inserts []durable.Insert
	var names []string
	for i := range tasks {
		t := &tasks[i]
		insert, err := insertOf(t.Name, t.RequestID, t.Values, t.Handoff)
		if err != nil {
			in.cfg.log().Warn("a task stays in memory: it cannot be queued", "task", t.Name, "request", t.RequestID, "error", err)
			t.Stay = true
			continue
		}
		inserts, names = append(inserts, insert), append(names, t.Name)
	}
	switch _, err := in.queue.Commit(ctx, inserts); {
	case errors.Is(err, durable.ErrUnknown):
		// Running them here as well would be twice.
		in.loseTrack(tasks, err)
		return nil
	case err != nil:
		return err
	}
	in.logMoved(names)
	return nil
}

// loseTrack reports tasks of which nobody knows whether the queue has them.
func (in *instance) loseTrack(tasks []background.Withdrawn, err error) {
	for i := range tasks {
		t := &tasks[i]
		if t.Stay {
			continue
		}
		in.cfg.log().Error("task abandoned: it is not known whether the queue has it", "task", t.Name, "request", t.RequestID, "error", err)
		in.lost = append(in.lost, background.AbandonedTask{Info: t.Info, Handoff: t.Handoff, Values: t.Values})
	}
}

func (in *instance) logMoved(names []string) {
	const most = 20
	if len(names) > 0 {
		in.cfg.log().Info("tasks moved to the queue", "number", len(names), "tasks", names[:min(len(names), most)])
	}
}

// rescue queues what a drain that ran out of time has left, where it may, and
// returns the error of the rest.
func (in *instance) rescue(err error) error {
	var abandoned *background.AbandonedError
	if in.queue == nil || !errors.As(err, &abandoned) {
		if len(in.lost) > 0 {
			return &background.AbandonedError{Cause: durable.ErrUnknown, Tasks: in.lost}
		}
		return err
	}
	rest := slices.Clone(in.lost)
	var saved []background.AbandonedTask
	var inserts []durable.Insert
	for _, t := range abandoned.Tasks {
		if !rescuable(&t) {
			rest = append(rest, t)
			continue
		}
		insert, err := insertOf(t.Name, t.RequestID, t.Values, t.Handoff)
		if err != nil {
			in.logAbandoned(&t, err)
			rest = append(rest, t)
			continue
		}
		saved, inserts = append(saved, t), append(inserts, insert)
	}
	ctx, cancel := context.WithTimeout(context.Background(), max(in.cfg.grace/2, time.Second/2))
	defer cancel()
	if _, err := in.queue.Commit(ctx, inserts); err != nil {
		for i := range saved {
			in.logAbandoned(&saved[i], err)
		}
		rest = append(rest, saved...)
	} else {
		names := make([]string, len(saved))
		for i := range saved {
			names[i] = saved[i].Name
		}
		in.logMoved(names)
	}
	if len(rest) == 0 {
		return nil
	}
	return &background.AbandonedError{Cause: abandoned.Cause, Tasks: rest}
}

// logAbandoned logs a task that the log has left out so far, as it might have
// been rescued.
func (in *instance) logAbandoned(t *background.AbandonedTask, err error) {
	logAbandonedTask(in.cfg.log(), t, "queue", err)
}
