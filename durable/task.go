package durable

import (
	"encoding/json"
	"time"
)

// A Task is what a store tells of a task.
type Task struct {
	ID          ID            `json:"id"`
	Kind        string        `json:"kind"`
	Queue       string        `json:"queue"`
	State       State         `json:"state"`
	Priority    int           `json:"priority,omitempty"`
	Key         string        `json:"key,omitempty"`
	Tags        []string      `json:"tags,omitempty"`
	Attempt     int           `json:"attempt"`
	MaxAttempts int           `json:"max_attempts"`
	Crashes     int           `json:"crashes,omitempty"`
	Fence       int64         `json:"-"`
	Node        string        `json:"node,omitempty"` // of the worker that runs it, or ran it last
	CreatedAt   time.Time     `json:"created_at"`
	RunAt       time.Time     `json:"run_at"`                // not before this time
	StartedAt   time.Time     `json:"started_at,omitzero"`   // of the last claim
	FinishedAt  time.Time     `json:"finished_at,omitzero"`  //
	CancelledAt time.Time     `json:"cancelled_at,omitzero"` // when somebody asked for it; a running task ends in its own time
	Timeout     time.Duration `json:"timeout,omitempty"`

	Progress *ProgressReport `json:"progress,omitempty"`
	Payload  []byte          `json:"-"`                // the argument as it is stored, see Codec
	Result   []byte          `json:"-"`                // likewise
	Errors   []AttemptError  `json:"errors,omitempty"` // of failed attempts and crashes, oldest first; from Get alone
	Meta     Meta            `json:"meta,omitzero"`
}

// Meta is what goes with a task besides its argument.
type Meta struct {
	RequestID   string `json:"request_id,omitempty"`  // of the request that added it
	TraceParent string `json:"traceparent,omitempty"` // of the span that added it, in W3C form
	Owner       string `json:"owner,omitempty"`       // who may see it, see Job.Owner
	Schedule    string `json:"schedule,omitempty"`    // that added it
	Tick        int64  `json:"tick,omitempty"`        // of that schedule, in Unix seconds; 0 if somebody ran it by hand
}

// A ProgressReport is how far a task has come.
type ProgressReport struct {
	Done    int       `json:"done"`
	Total   int       `json:"total"`
	Message string    `json:"message,omitempty"`
	At      time.Time `json:"at,omitzero"`
}

// An AttemptError says how an attempt failed.
type AttemptError struct {
	Attempt int       `json:"attempt"`
	At      time.Time `json:"at"`
	Cause   string    `json:"cause"` // "error", "panic", "timeout", "crash", "payload" or "cancelled"
	Message string    `json:"message"`
	Stack   string    `json:"stack,omitempty"`
	Node    string    `json:"node,omitempty"`
}

// Limits on what is kept of an error, in bytes.
const (
	maxErrorMessage = 4 << 10
	maxErrorStack   = 16 << 10
	maxErrors       = 50 // attempts whose errors are kept: the last ones
)

// MaxErrors is how many errors a store keeps of a task: the last ones.
const MaxErrors = maxErrors

// A Filter chooses tasks; an empty field chooses all.
type Filter struct {
	States []State   `json:"states,omitempty"`
	Queue  string    `json:"queue,omitempty"`
	Kind   string    `json:"kind,omitempty"`
	Tag    string    `json:"tag,omitempty"`
	Key    string    `json:"key,omitempty"`   // with Kind: keys belong to a kind
	After  time.Time `json:"after,omitzero"`  // created at this time or later
	Before time.Time `json:"before,omitzero"` // created before this time
}

// A Page asks for a part of a list, newest first.
type Page struct {
	Limit int // at most 1,000; defaults to 100
	After ID  // the last id of the page before; zero for the first page
}

// A Count says how many tasks of a lane are in a state.
type Count struct {
	Queue string `json:"queue"`
	Kind  string `json:"kind"`
	State State  `json:"state"`
	N     int    `json:"n"`
	More  bool   `json:"more,omitempty"` // there are more than N: counting stops at MaxCount
}

// MaxCount is where a store stops counting the tasks of one lane and state.
const MaxCount = 100_000

// A QueueInfo is the state of a queue.
type QueueInfo struct {
	Name   string        `json:"name"`
	Paused bool          `json:"paused"`
	Oldest time.Duration `json:"oldest"` // how long its oldest ready task has been ready; 0 if there is none
}

// A NodeInfo is a process that has the store open.
type NodeInfo struct {
	Node
	LeaseUntil time.Time `json:"lease_until"`
	Running    int       `json:"running"`
}

// A Retention says how long finished tasks are kept. Zero is its default,
// negative is as short as it gets: ten minutes, in which a commit whose answer
// was lost is still told from one that never happened.
type Retention struct {
	Succeeded time.Duration // defaults to 24 hours
	Cancelled time.Duration // defaults to 24 hours
	Dead      time.Duration // defaults to 30 days
}

// WithDefaults returns r with its defaults in place.
func (r Retention) WithDefaults() Retention {
	for _, d := range []struct {
		field    *time.Duration
		standard time.Duration
	}{{&r.Succeeded, 24 * time.Hour}, {&r.Cancelled, 24 * time.Hour}, {&r.Dead, 30 * 24 * time.Hour}} {
		if *d.field == 0 {
			*d.field = d.standard
		}
		*d.field = max(*d.field, MinRetention)
	}
	return r
}

// MinRetention is how long a finished task is kept at least.
const MinRetention = 10 * time.Minute

// opts is what stores keep of a task in one JSON value: what few tasks have
// and no query looks for.
type opts struct {
	Tags    []string      `json:"tags,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"`
	Key     string        `json:"key,omitempty"`
	Meta    *Meta         `json:"meta,omitempty"`
}

// EncodeOptions makes the one JSON value that a store keeps of what few tasks
// have; nil if there is nothing.
func EncodeOptions(in *Insert) []byte {
	o := opts{Tags: in.Tags, Timeout: in.Timeout, Key: in.Key}
	if in.Meta != (Meta{}) {
		o.Meta = &in.Meta
	}
	if len(o.Tags) == 0 && o.Timeout == 0 && o.Key == "" && o.Meta == nil {
		return nil
	}
	b, _ := json.Marshal(o) // strings and numbers
	return b
}

// DecodeOptions reads what [EncodeOptions] made. What it cannot read it leaves
// out: one damaged row must not stop a queue.
func DecodeOptions(b []byte) (tags []string, timeout time.Duration, key string, meta Meta) {
	if len(b) == 0 {
		return nil, 0, "", Meta{}
	}
	var o opts
	_ = json.Unmarshal(b, &o)
	if o.Meta != nil {
		meta = *o.Meta
	}
	return o.Tags, o.Timeout, o.Key, meta
}
