package durable

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Codec seals what is stored: encrypts it, compresses it. It may be called by
// several goroutines.
type Codec interface {
	// Seal is called with a kind's argument or result before it is stored.
	Seal(kind string, plain []byte) ([]byte, error)

	// Open turns what Seal returned back. It must refuse anything else: a task
	// whose argument it cannot open is dead at once.
	Open(kind string, sealed []byte) ([]byte, error)
}

// QueueConfig configures a [Queue]. The zero value is ready to use.
type QueueConfig struct {
	// MaxPayload is the largest argument of a task in bytes, as it is stored.
	// Defaults to 1 MiB.
	MaxPayload int

	// MaxResult is the largest result of a task in bytes, as it is stored.
	// Defaults to 1 MiB.
	MaxResult int

	// CommitTimeout is how long adding a task waits for its commit before it
	// fails with an error that matches [ErrUnavailable], and [ErrUnknown] too
	// if the commit was under way. Defaults to 10 seconds.
	CommitTimeout time.Duration

	// MaxWaiting is how many callers may wait for a commit. More are refused
	// at once, with an error that matches [ErrUnavailable]. Defaults to 10,000.
	MaxWaiting int

	// Codec seals arguments and results. Defaults to storing them as they are.
	Codec Codec

	// Admit may refuse a job before it is encoded, with the reason. Defaults to
	// taking all.
	Admit func(Job) error

	// Redact returns what people who look at the queue may see of an argument,
	// see [Queue.Redacted]. Defaults to all of it.
	Redact func(kind string, payload []byte) []byte
}

const (
	defaultMaxBytes      = 1 << 20
	defaultCommitTimeout = 10 * time.Second
	defaultMaxWaiting    = 10_000
)

func (c QueueConfig) withDefaults() QueueConfig {
	if c.MaxPayload == 0 {
		c.MaxPayload = defaultMaxBytes
	}
	if c.MaxResult == 0 {
		c.MaxResult = defaultMaxBytes
	}
	if c.CommitTimeout == 0 {
		c.CommitTimeout = defaultCommitTimeout
	}
	if c.MaxWaiting == 0 {
		c.MaxWaiting = defaultMaxWaiting
	}
	if c.Redact == nil {
		c.Redact = func(_ string, payload []byte) []byte { return payload }
	}
	return c
}

func (c QueueConfig) validate() error {
	for _, f := range []struct {
		name  string
		value int
	}{{"MaxPayload", c.MaxPayload}, {"MaxResult", c.MaxResult}, {"MaxWaiting", c.MaxWaiting}} {
		if f.value < 0 {
			return fmt.Errorf("durable: QueueConfig.%s is %d; it must be positive, or 0 for its default", f.name, f.value)
		}
	}
	if c.CommitTimeout < 0 {
		return fmt.Errorf("durable: QueueConfig.CommitTimeout is %v; it must be positive, or 0 for its default", c.CommitTimeout)
	}
	return nil
}

// A Queue adds tasks to a store, looks after them and waits for them. Its
// methods may be called by several goroutines. What callers ask for at the
// same time shares transactions, so that many are little dearer than one.
//
// A Queue only adds tasks; an [Engine] runs them, in this process or another.
type Queue struct {
	cfg     QueueConfig
	store   Store
	batcher *batcher
	signals *signals
	waits   *waits
}

// NewQueue makes a queue with the defaults of [QueueConfig]. A nil store
// panics.
func NewQueue(store Store) *Queue {
	q, err := QueueConfig{}.NewQueue(store)
	if err != nil {
		panic(err.Error())
	}
	return q
}

// NewQueue makes a queue, or returns an error that names the field and the
// rule it breaks. End it with [Queue.Close].
func (c QueueConfig) NewQueue(store Store) (*Queue, error) {
	if store == nil {
		return nil, errors.New("durable: a queue needs a store; open one with package durable/sqlite")
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	q := &Queue{cfg: c, store: store, signals: newSignals(store), waits: newWaits()}
	q.batcher = newBatcher(store, c.CommitTimeout, c.MaxWaiting)
	return q, nil
}

// Store returns the queue's store.
func (q *Queue) Store() Store { return q.store }

// Close waits until what has been handed to the queue is committed, ends the
// queue's goroutines, and refuses everything that is committed from then on
// with an error that matches [ErrClosed]. When ctx ends first, it returns an
// error and what is left goes on being tried. It does not close the store.
// Drain the queue's engine first.
func (q *Queue) Close(ctx context.Context) error {
	err := q.batcher.close(ctx)
	q.signals.close()
	return err
}

// Add adds a task: it is committed, durably, when Add returns. The id is the
// task's, or, when an unfinished task has the same key, another name for that
// one.
//
// When ctx ends before the commit has begun, nothing has happened; when it
// ends later, the error matches [ErrUnknown] too. Every error that is worth
// another try matches [ErrUnavailable].
//
// With the context of [Queue.InTx] the task joins the open transaction.
func (q *Queue) Add(ctx context.Context, job Queueable) (ID, error) {
	in, err := q.encode(ctx, job)
	if err != nil {
		return ID{}, err
	}
	if j := joinedIn(ctx, q); j != nil {
		if _, err := j.add([]Insert{in}); err != nil {
			return ID{}, err
		}
		return in.ID, nil
	}
	inserted, err := q.batcher.insertOne(ctx, in)
	if err != nil {
		return ID{}, fmt.Errorf("durable: add %q: %w", in.Kind, err)
	}
	return addedID(in, inserted)
}

// addedID returns the id that the caller may use: in case of a duplicate the
// one it made, which is an alias now.
func addedID(in Insert, inserted Inserted) (ID, error) {
	if inserted.Err != nil {
		return ID{}, fmt.Errorf("durable: add %q: %w", in.Kind, inserted.Err)
	}
	return in.ID, nil
}

// AddAll adds several tasks, all or none, as [Queue.Add] adds one.
func (q *Queue) AddAll(ctx context.Context, jobs ...Queueable) ([]ID, error) {
	inserts := make([]Insert, len(jobs))
	ids := make([]ID, len(jobs))
	for i, job := range jobs {
		in, err := q.encode(ctx, job)
		if err != nil {
			return nil, err
		}
		inserts[i], ids[i] = in, in.ID
	}
	if _, err := q.Commit(ctx, inserts); err != nil {
		return nil, err
	}
	return ids, nil
}

// Encode checks a job, encodes its argument as it is now, and seals it. What it
// returns is to be given to [Queue.Commit].
func (q *Queue) Encode(job Queueable) (Insert, error) {
	if job == nil {
		return Insert{}, errors.New("durable: a nil job was added; make one with the kind's With")
	}
	j := job.durableJob()
	if q.cfg.Admit != nil && j.kind != nil {
		if err := q.cfg.Admit(j); err != nil {
			return Insert{}, fmt.Errorf("durable: add %q: %w", j.kind.name, err)
		}
	}
	in, err := j.insert()
	if err != nil {
		return Insert{}, fmt.Errorf("durable: add: %w", err)
	}
	if q.cfg.Codec != nil {
		if in.Payload, err = q.cfg.Codec.Seal(in.Kind, in.Payload); err != nil {
			return Insert{}, fmt.Errorf("durable: add %q: seal its argument: %w", in.Kind, err)
		}
	}
	if n := len(in.Payload); n > q.cfg.MaxPayload {
		return Insert{}, fmt.Errorf("durable: add %q: its argument has %d bytes, the queue takes %d: %w; store it elsewhere and add its name, or raise QueueConfig.MaxPayload",
			in.Kind, n, q.cfg.MaxPayload, ErrTooLarge)
	}
	return in, nil
}

// encode is Encode with what the context says of new tasks.
func (q *Queue) encode(ctx context.Context, job Queueable) (Insert, error) {
	in, err := q.Encode(job)
	if err == nil {
		in.Meta = withMeta(in.Meta, metaFrom(ctx))
	}
	return in, err
}

// Commit adds tasks that [Queue.Encode] has encoded, all or none. A duplicate
// counts as added; the result says so.
func (q *Queue) Commit(ctx context.Context, inserts []Insert) ([]Inserted, error) {
	if len(inserts) == 0 {
		return nil, nil
	}
	if j := joinedIn(ctx, q); j != nil {
		return j.add(inserts)
	}
	inserted, err := q.batcher.insertAll(ctx, inserts)
	if err != nil {
		return nil, fmt.Errorf("durable: add %s: %w", kindsOf(inserts), err)
	}
	for i := range inserted {
		if err := inserted[i].Err; err != nil {
			q.undo(inserts, inserted)
			return nil, fmt.Errorf("durable: add %q: %w", inserts[i].Kind, err)
		}
	}
	return inserted, nil
}

// undo takes back the good part of a group of which the store has refused
// another part. Stores with shared transactions never come to that.
func (q *Queue) undo(inserts []Insert, inserted []Inserted) {
	ctx, cancel := context.WithTimeout(context.Background(), q.cfg.CommitTimeout)
	defer cancel()
	for i := range inserted {
		if inserted[i].Err == nil && !inserted[i].Duplicate {
			_ = q.store.Delete(ctx, inserts[i].ID) // one that has begun cannot be taken back
		}
	}
}

// kindsOf names the kinds of tasks for an error.
func kindsOf(inserts []Insert) string {
	if len(inserts) == 1 {
		return fmt.Sprintf("%q", inserts[0].Kind)
	}
	return fmt.Sprintf("%q and %d more", inserts[0].Kind, len(inserts)-1)
}

// fire commits a tick of a schedule.
func (q *Queue) fire(ctx context.Context, f Fire) (FireResult, error) {
	res, err := q.batcher.fire(ctx, f)
	if err != nil {
		return FireResult{}, fmt.Errorf("durable: fire schedule %q: %w", f.Name, err)
	}
	return res, nil
}
