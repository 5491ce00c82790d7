package durable

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// A Job is a task to be added: a kind with an argument and options. It is a
// value: each option returns another job and leaves the one it is called on as
// it was.
type Job struct {
	kind   *kind
	arg    any
	encode func(any) ([]byte, error)
	in     Insert
	err    error
}

// Queueable is what a queue takes: a [Job], or a type that embeds one.
type Queueable interface{ durableJob() Job }

func (j Job) durableJob() Job { return j }

// Kind returns the name of the job's kind.
func (j Job) Kind() string {
	if j.kind == nil {
		return ""
	}
	return j.kind.name
}

// Policy returns how tasks of the job's kind are run.
func (j Job) Policy() Policy {
	if j.kind == nil {
		return Policy{}
	}
	return j.kind.policy
}

// AsJob returns the job that q is, or embeds.
func AsJob(q Queueable) Job { return q.durableJob() }

// Arg returns the job's argument as it was given.
func (j Job) Arg() any { return j.arg }

// In lets the task run after d, by the store's clock.
func (j Job) In(d time.Duration) Job {
	if d > maxDelay {
		j.fail(fmt.Errorf("durable: In(%v) is more than ten years away", d))
	}
	j.in.Delay, j.in.At = max(0, d), time.Time{}
	return j
}

// At lets the task run at a time, or at once if that is past.
func (j Job) At(t time.Time) Job {
	j.in.At, j.in.Delay = t, 0
	return j
}

// Key makes the task the only unfinished one of its kind with this key. While
// there is one, adding another adds nothing, and the id that is returned is
// another name for the existing task. Dead, cancelled and succeeded tasks do
// not hold their key any more.
func (j Job) Key(key string) Job {
	switch {
	case key == "" || len(key) > maxKey:
		j.fail(fmt.Errorf("durable: a key of %d bytes; it must have between 1 and %d", len(key), maxKey))
	default:
		j.fail(checkText("key", key))
	}
	j.in.Key = key
	return j
}

// Priority sets the task's priority, see Policy.Priority.
func (j Job) Priority(n int) Job {
	j.fail(checkPriority(n))
	j.in.Priority = n
	return j
}

// Queue puts the task into another queue than its kind's.
func (j Job) Queue(name string) Job {
	j.fail(checkName("queue", name))
	j.in.Queue = name
	return j
}

// MaxAttempts sets how often the task may fail, instead of its kind's policy.
func (j Job) MaxAttempts(n int) Job {
	if n < 1 || n > maxAttempts {
		j.fail(fmt.Errorf("durable: MaxAttempts(%d); it must be between 1 and %d", n, maxAttempts))
	}
	j.in.MaxAttempts = n
	return j
}

// Timeout sets the time limit of an attempt, instead of its kind's policy.
func (j Job) Timeout(d time.Duration) Job {
	j.in.Timeout = d
	return j
}

// Tags adds words to find the task by.
func (j Job) Tags(tags ...string) Job {
	for _, tag := range tags {
		j.fail(checkName("tag", tag))
	}
	j.in.Tags = append(slices.Clip(j.in.Tags), tags...)
	if len(j.in.Tags) > maxTags {
		j.fail(fmt.Errorf("durable: %d tags; a task has at most %d", len(j.in.Tags), maxTags))
	}
	return j
}

// Owner says who may see the task, for programs that show tasks to their
// users: a user's id, say. Queues do not look at it.
func (j Job) Owner(owner string) Job {
	j.fail(checkText("owner", owner))
	j.in.Meta.Owner = owner
	return j
}

// fail keeps the first error until the job is added.
func (j *Job) fail(err error) {
	if j.err == nil {
		j.err = err
	}
}

// insert encodes the argument, as it is now, and makes an id.
func (j Job) insert() (Insert, error) {
	if j.kind == nil {
		return Insert{}, fmt.Errorf("durable: an empty Job was added; make one with the kind's With")
	}
	if j.kind.unstorable != nil {
		return Insert{}, j.kind.unstorable
	}
	if j.err != nil {
		return Insert{}, fmt.Errorf("task %q: %w", j.kind.name, j.err)
	}
	in := j.in
	in.ID, in.Kind = NewID(), j.kind.name
	var err error
	if in.Payload, err = j.encode(j.arg); err != nil {
		return Insert{}, fmt.Errorf("task %q: encode its argument: %w", j.kind.name, err)
	}
	switch year := in.At.UTC().Year(); {
	case year > 9999:
		return Insert{}, fmt.Errorf("task %q: it is to run in the year %d", j.kind.name, year)
	case year < 0: // which JSON cannot say; it is past all the same
		in.At = time.Time{}
	}
	return in, nil
}

// newJob makes a job that begins with its kind's policy.
func newJob(k *kind, arg any, encode func(any) ([]byte, error)) Job {
	return Job{kind: k, arg: arg, encode: encode, in: Insert{
		Queue: k.policy.Queue, Priority: k.policy.Priority, MaxAttempts: k.policy.MaxAttempts, Timeout: max(0, k.policy.Timeout),
	}}
}

func encodeJSON(arg any) ([]byte, error) { return json.Marshal(arg) }
