package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wake-go/wake/durable"
)

// What is read of a task, from both tables.
const (
	taskColumns = `SELECT t.id::text, l.kind, l.queue, t.state, t.rank, t.run_at, coalesce(n.name, ''), t.fence, t.attempt, t.crashes, t.max_attempts,
		t.created_at, t.started_at, t.cancel_at, t.progress_at, t.progress, t.opts, `
	taskTables = ` t JOIN wake.lane l ON l.id = t.lane LEFT JOIN wake.node n ON n.boot = t.boot`

	hotTasks  = taskColumns + `NULL::timestamptz, %s FROM wake.task` + taskTables
	coldTasks = taskColumns + `t.finished_at, %s FROM wake.done` + taskTables
	nothing   = `NULL::bytea, NULL::bytea`
)

func scanTask(row row) (t durable.Task, err error) {
	var id string
	var rank int
	var started, cancelled, progressed, finished *time.Time
	var progress, opts []byte
	if err := row.Scan(&id, &t.Kind, &t.Queue, &t.State, &rank, &t.RunAt, &t.Node, &t.Fence, &t.Attempt, &t.Crashes, &t.MaxAttempts,
		&t.CreatedAt, &started, &cancelled, &progressed, &progress, &opts, &finished, &t.Payload, &t.Result); err != nil {
		return t, err
	}
	t.Priority, t.RunAt, t.CreatedAt = -rank, t.RunAt.UTC(), t.CreatedAt.UTC()
	t.StartedAt, t.CancelledAt, t.FinishedAt = timeOf(started), timeOf(cancelled), timeOf(finished)
	if len(progress) > 0 {
		t.Progress = &durable.ProgressReport{}
		if json.Unmarshal(progress, t.Progress) != nil {
			t.Progress = nil
		} else {
			t.Progress.At = timeOf(progressed)
		}
	}
	t.Tags, t.Timeout, t.Key, t.Meta = durable.DecodeOptions(opts)
	t.ID, err = durable.ParseID(id)
	return t, err
}

// Get returns a task.
func (s *Store) Get(ctx context.Context, id durable.ID) (*durable.Task, error) {
	var t *durable.Task
	err := s.read(ctx, func(r runner) error {
		existing, found, err := find(ctx, r, id)
		if err != nil {
			return err
		}
		if !found {
			return notFound(id)
		}
		t, err = get(ctx, r, existing)
		return err
	})
	return t, err
}

func get(ctx context.Context, r runner, id durable.ID) (*durable.Task, error) {
	const payload = `coalesce(t.payload, (SELECT b.payload FROM wake.blob b WHERE b.id = t.id)), `
	var t *durable.Task
	err := r.run(ctx, func(row row) error {
		task, err := scanTask(row)
		t = &task
		return err
	}, fmt.Sprintf(hotTasks, payload+`NULL::bytea`)+` WHERE t.id = $1::uuid UNION ALL `+fmt.Sprintf(coldTasks, payload+`t.result`)+` WHERE t.id = $1::uuid`, [16]byte(id))
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, notFound(id) // an alias of what has been deleted
	}
	return t, r.run(ctx, func(row row) error {
		var e durable.AttemptError
		err := row.Scan(&e.Attempt, &e.At, &e.Cause, &e.Message, &e.Stack, &e.Node)
		e.At = e.At.UTC()
		t.Errors = append(t.Errors, e)
		return err
	}, `SELECT attempt, at, cause, message, stack, node FROM wake.attempt_error WHERE task = $1::uuid ORDER BY n`, [16]byte(id))
}

// conditions are a WHERE clause and its arguments.
type conditions struct {
	clauses []string
	args    []any
}

// add adds a clause, in which %d is the number of its argument.
func (c *conditions) add(clause string, arg any) {
	c.args = append(c.args, arg)
	c.clauses = append(c.clauses, fmt.Sprintf(clause, len(c.args)))
}

func (c *conditions) String() string {
	if len(c.clauses) == 0 {
		return ""
	}
	return ` WHERE ` + strings.Join(c.clauses, ` AND `)
}

func conditionsOf(f durable.Filter, after durable.ID) *conditions {
	c := &conditions{}
	if !after.IsZero() {
		c.add(`t.id < $%d::uuid`, [16]byte(after))
	}
	if len(f.States) > 0 {
		states := make([]int16, len(f.States))
		for i, state := range f.States {
			states[i] = int16(state)
		}
		c.add(`t.state = ANY($%d::smallint[])`, states)
	}
	if f.Queue != "" {
		c.add(`t.lane IN (SELECT id FROM wake.lane WHERE queue = $%d)`, f.Queue)
	}
	if f.Kind != "" {
		c.add(`t.lane IN (SELECT id FROM wake.lane WHERE kind = $%d)`, f.Kind)
	}
	if f.Key != "" {
		c.add(`t.ukey = $%d::uuid`, *keyOf(f.Kind, f.Key))
	}
	if f.Tag != "" {
		c.add(`t.id IN (SELECT id FROM wake.tag WHERE tag = $%d)`, f.Tag)
	}
	if !f.After.IsZero() {
		c.add(`t.created_at >= $%d`, f.After)
	}
	if !f.Before.IsZero() {
		c.add(`t.created_at < $%d`, f.Before)
	}
	return c
}

// List returns tasks, newest first.
func (s *Store) List(ctx context.Context, f durable.Filter, p durable.Page) ([]durable.Task, error) {
	limit := min(max(cmp.Or(p.Limit, 100), 1), 1000)
	hot, cold := len(f.States) == 0, len(f.States) == 0
	for _, state := range f.States {
		hot, cold = hot || !state.Finished(), cold || state.Finished()
	}
	c := conditionsOf(f, p.After)
	var tasks []durable.Task
	err := s.read(ctx, func(r runner) error {
		tasks = nil
		from := func(query string) error {
			return r.run(ctx, func(row row) error {
				t, err := scanTask(row)
				tasks = append(tasks, t)
				return err
			}, fmt.Sprintf(query, nothing)+c.String()+fmt.Sprintf(` ORDER BY t.id DESC LIMIT %d`, limit), c.args...)
		}
		if hot {
			if err := from(hotTasks); err != nil {
				return err
			}
		}
		if cold {
			return from(coldTasks)
		}
		return nil
	})
	slices.SortFunc(tasks, func(a, b durable.Task) int { return slices.Compare(b.ID[:], a.ID[:]) })
	return tasks[:min(len(tasks), limit)], err
}

// Of most states the tasks are counted together, up to the limit: then those of
// each lane may be more.
const (
	countReady = `SELECT l.queue, l.kind, 1, (SELECT count(*) FROM (SELECT 1 FROM wake.task t WHERE t.lane = l.id AND t.state = 1 LIMIT $1::integer) f), false FROM wake.lane l`

	countState = `SELECT l.queue, l.kind, %d, c.n, c.total > $1::integer - 1 FROM (
			SELECT lane, count(*) AS n, sum(count(*)) OVER () AS total FROM (SELECT lane FROM wake.%s WHERE state = %[1]d LIMIT $1::integer) f GROUP BY lane
		) c JOIN wake.lane l ON l.id = c.lane`
)

// Counts returns how many tasks there are.
func (s *Store) Counts(ctx context.Context) ([]durable.Count, error) {
	var all []durable.Count
	err := s.read(ctx, func(r runner) error {
		all = nil
		add := func(row row) error {
			var c durable.Count
			if err := row.Scan(&c.Queue, &c.Kind, &c.State, &c.N, &c.More); err != nil || c.N == 0 {
				return err
			}
			c.More = c.More || c.N > durable.MaxCount
			c.N = min(c.N, durable.MaxCount)
			all = append(all, c)
			return nil
		}
		if err := r.run(ctx, add, countReady, durable.MaxCount+1); err != nil {
			return err
		}
		for _, state := range []durable.State{durable.Running, durable.Scheduled, durable.Succeeded, durable.Dead, durable.Cancelled} {
			table := "task"
			if state.Finished() {
				table = "done"
			}
			if err := r.run(ctx, add, fmt.Sprintf(countState, uint8(state), table), durable.MaxCount+1); err != nil {
				return err
			}
		}
		return nil
	})
	slices.SortFunc(all, func(a, b durable.Count) int {
		return cmp.Or(strings.Compare(a.Queue, b.Queue), strings.Compare(a.Kind, b.Kind), int(a.State)-int(b.State))
	})
	return all, err
}

// Queues returns the queues that have tasks or are paused. The oldest ready
// task is the first of the most urgent ones or of the least urgent ones.
func (s *Store) Queues(ctx context.Context) ([]durable.QueueInfo, error) {
	queues := map[string]durable.QueueInfo{}
	err := s.read(ctx, func(r runner) error {
		clear(queues)
		return r.run(ctx, func(row row) error {
			var q durable.QueueInfo
			var oldest float64
			if err := row.Scan(&q.Name, &q.Paused, &oldest); err != nil {
				return err
			}
			q.Oldest = max(time.Duration(oldest*float64(time.Second)), queues[q.Name].Oldest, 0)
			q.Paused = q.Paused || queues[q.Name].Paused
			queues[q.Name] = q
			return nil
		}, `SELECT l.queue, coalesce(q.paused, false), coalesce(extract(epoch FROM `+clock+` - least(
				(SELECT t.run_at FROM wake.task t WHERE t.lane = l.id AND t.state = 1 ORDER BY t.rank, t.id LIMIT 1),
				(SELECT t.run_at FROM wake.task t WHERE t.lane = l.id AND t.state = 1
					AND t.rank = (SELECT max(m.rank) FROM wake.task m WHERE m.lane = l.id AND m.state = 1) ORDER BY t.id LIMIT 1))), 0)::float8
			FROM wake.lane l LEFT JOIN wake.queue q ON q.name = l.queue
			UNION ALL SELECT name, true, 0 FROM wake.queue WHERE paused`, s.clockArg())
	})
	return slices.SortedFunc(maps.Values(queues), func(a, b durable.QueueInfo) int { return strings.Compare(a.Name, b.Name) }), err
}
