package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/wake-go/wake/durable"
)

// A reader looks at one moment of the file, and is in nobody's way.
type reader = userTx

// read calls f with one.
func (s *Store) read(ctx context.Context, f func(*reader) error) error {
	if s.ended.Err() != nil {
		return durable.ErrClosed
	}
	tx, err := s.reads.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return explained(err)
	}
	defer tx.Rollback() // it has changed nothing
	return explained(f(&reader{ctx, tx}))
}

// columns are those of a task, in both tables.
const (
	columns     = `t.seq, t.id, t.lane, t.state, t.priority, t.run_at, t.boot, t.fence, t.attempt, t.crashes, t.max_attempts, t.created_at, t.started_at, t.cancel_at, t.extras, t.progress, t.opts`
	hotColumns  = columns + `, 0 AS finished_at`
	coldColumns = columns + `, t.finished_at`
)

// A view makes tasks of rows.
type view struct {
	lanes map[int64]lane
	nodes map[durable.Boot]string
}

func newView(x execer) (*view, error) {
	v := &view{map[int64]lane{}, map[durable.Boot]string{}}
	err := x.query(func(row []driver.Value) error {
		v.lanes[integer(row[0])] = lane{text(row[1]), text(row[2])}
		return nil
	}, `SELECT id, queue, kind FROM wake_lane`)
	if err != nil {
		return nil, err
	}
	return v, x.query(func(row []driver.Value) error {
		v.nodes[durable.Boot(idOf(row[0]))] = text(row[1])
		return nil
	}, `SELECT boot, name FROM wake_node`)
}

func (v *view) task(row []driver.Value) durable.Task {
	l := v.lanes[integer(row[2])]
	t := durable.Task{
		ID: idOf(row[1]), Kind: l.kind, Queue: l.queue, State: durable.State(integer(row[3])), Priority: int(integer(row[4])),
		RunAt: timeOf(integer(row[5])), Node: v.nodes[durable.Boot(idOf(row[6]))], Fence: integer(row[7]), Attempt: int(integer(row[8])),
		Crashes: int(integer(row[9])), MaxAttempts: int(integer(row[10])), CreatedAt: timeOf(integer(row[11])),
		StartedAt: timeOf(integer(row[12])), CancelledAt: timeOf(integer(row[13])), FinishedAt: timeOf(integer(row[17])),
	}
	if p := blob(row[15]); len(p) > 0 {
		t.Progress = &durable.ProgressReport{}
		if json.Unmarshal(p, t.Progress) != nil {
			t.Progress = nil
		}
	}
	t.Tags, t.Timeout, t.Key, t.Meta = durable.DecodeOptions(blob(row[16]))
	return t
}

func notFound(id durable.ID) error {
	return fmt.Errorf("durable: task %v: %w", id, durable.ErrNotFound)
}

// Get returns a task.
func (s *Store) Get(ctx context.Context, id durable.ID) (*durable.Task, error) {
	var t *durable.Task
	err := s.read(ctx, func(r *reader) error {
		existing, found, err := find(r, id)
		if err != nil {
			return err
		}
		if !found {
			return notFound(id)
		}
		t, err = get(r, existing)
		return err
	})
	return t, err
}

func get(r *reader, id durable.ID) (*durable.Task, error) {
	v, err := newView(r)
	if err != nil {
		return nil, err
	}
	var t *durable.Task
	var seq, extras int64
	err = r.query(func(row []driver.Value) error {
		task := v.task(row)
		seq, extras = integer(row[0]), integer(row[14])
		t = &task
		t.Payload, t.Result = blob(row[18]), blob(row[19])
		return nil
	}, `SELECT `+hotColumns+`, t.payload, NULL FROM wake_task t WHERE t.id = ?1
		UNION ALL SELECT `+coldColumns+`, t.payload, t.result FROM wake_done t WHERE t.id = ?1`, id)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, notFound(id) // an alias of what has been deleted
	}
	if extras&hasBlob != 0 {
		err = r.query(func(row []driver.Value) error { t.Payload = blob(row[0]); return nil }, `SELECT payload FROM wake_blob WHERE seq = ?`, seq)
	}
	if err == nil && extras&hasErrors != 0 {
		err = r.query(func(row []driver.Value) error {
			t.Errors = append(t.Errors, durable.AttemptError{
				Attempt: int(integer(row[0])), At: timeOf(integer(row[1])), Cause: text(row[2]), Message: text(row[3]), Stack: text(row[4]), Node: text(row[5]),
			})
			return nil
		}, `SELECT attempt, at, cause, message, stack, node FROM wake_attempt_error WHERE seq = ? ORDER BY n`, seq)
	}
	return t, err
}

// conditions are a WHERE clause and its arguments.
type conditions struct {
	clauses []string
	args    []any
}

func (c *conditions) add(clause string, args ...any) {
	c.clauses = append(c.clauses, clause)
	c.args = append(c.args, args...)
}

func (c *conditions) String() string {
	if len(c.clauses) == 0 {
		return ""
	}
	return ` WHERE ` + strings.Join(c.clauses, ` AND `)
}

func conditionsOf(f durable.Filter, after durable.ID, v *view) *conditions {
	c := &conditions{}
	if !after.IsZero() {
		c.add(`t.id < ?`, after)
	}
	if len(f.States) > 0 {
		states := make([]any, len(f.States))
		for i, s := range f.States {
			states[i] = s
		}
		c.add(`t.state IN (`+marks(len(states))+`)`, states...)
	}
	if f.Queue != "" || f.Kind != "" {
		var ids []any
		for id, l := range v.lanes {
			if (f.Queue == "" || l.queue == f.Queue) && (f.Kind == "" || l.kind == f.Kind) {
				ids = append(ids, id)
			}
		}
		c.add(`t.lane IN (`+marks(len(ids))+`)`, ids...)
	}
	if f.Key != "" {
		c.add(`t.ukey = ?`, keyOf(f.Kind, f.Key))
	}
	if f.Tag != "" {
		c.add(`t.id IN (SELECT id FROM wake_tag WHERE tag = ?)`, f.Tag)
	}
	if !f.After.IsZero() {
		c.add(`t.created_at >= ?`, micros(f.After))
	}
	if !f.Before.IsZero() {
		c.add(`t.created_at < ?`, micros(f.Before))
	}
	return c
}

func marks(n int) string { return strings.TrimSuffix(strings.Repeat(`?, `, n), `, `) }

// List returns tasks, newest first.
func (s *Store) List(ctx context.Context, f durable.Filter, p durable.Page) ([]durable.Task, error) {
	limit := min(max(cmp.Or(p.Limit, 100), 1), 1000)
	hot, cold := len(f.States) == 0, len(f.States) == 0
	for _, state := range f.States {
		hot, cold = hot || !state.Finished(), cold || state.Finished()
	}
	var tasks []durable.Task
	err := s.read(ctx, func(r *reader) error {
		v, err := newView(r)
		if err != nil {
			return err
		}
		c := conditionsOf(f, p.After, v)
		from := func(columns, table string) error {
			return r.query(func(row []driver.Value) error {
				tasks = append(tasks, v.task(row))
				return nil
			}, `SELECT `+columns+` FROM `+table+` t`+c.String()+` ORDER BY t.id DESC LIMIT ?`, append(slices.Clone(c.args), limit)...)
		}
		if hot {
			err = from(hotColumns, `wake_task`)
		}
		if cold && err == nil {
			err = from(coldColumns, `wake_done`)
		}
		return err
	})
	slices.SortFunc(tasks, func(a, b durable.Task) int { return slices.Compare(b.ID[:], a.ID[:]) })
	return tasks[:min(len(tasks), limit)], err
}

// Counts returns how many tasks there are.
func (s *Store) Counts(ctx context.Context) ([]durable.Count, error) {
	type group struct {
		lane  int64
		state durable.State
	}
	counts := map[group]durable.Count{}
	err := s.read(ctx, func(r *reader) error {
		v, err := newView(r)
		if err != nil {
			return err
		}
		count := func(lane int64, state durable.State, n int64) {
			l := v.lanes[lane]
			c := durable.Count{Queue: l.queue, Kind: l.kind, State: state, N: int(min(n, durable.MaxCount)), More: n > durable.MaxCount}
			if n > 0 {
				counts[group{lane, state}] = c
			}
		}
		for id := range v.lanes {
			n, _, err := r.one(`SELECT count(*) FROM (SELECT 1 FROM wake_task WHERE lane = ? AND state = 1 LIMIT ?)`, id, durable.MaxCount+1)
			if err != nil {
				return err
			}
			count(id, durable.Ready, n)
		}
		for _, q := range []struct {
			state durable.State
			from  string
		}{
			{durable.Running, `wake_task WHERE state = 2`}, {durable.Scheduled, `wake_task WHERE state = 3`},
			{durable.Succeeded, `wake_done WHERE state = 6`}, {durable.Dead, `wake_done WHERE state = 7`}, {durable.Cancelled, `wake_done WHERE state = 8`},
		} {
			total, first := int64(0), map[int64]int64{}
			err := r.query(func(row []driver.Value) error {
				first[integer(row[0])] = integer(row[1])
				total += integer(row[1])
				return nil
			}, `SELECT lane, count(*) FROM (SELECT lane FROM `+q.from+` LIMIT ?) GROUP BY lane`, durable.MaxCount+1)
			if err != nil {
				return err
			}
			for lane, n := range first {
				count(lane, q.state, n)
				if c := counts[group{lane, q.state}]; total > durable.MaxCount {
					c.More = true
					counts[group{lane, q.state}] = c
				}
			}
		}
		return nil
	})
	return slices.SortedFunc(maps.Values(counts), func(a, b durable.Count) int {
		return cmp.Or(strings.Compare(a.Queue, b.Queue), strings.Compare(a.Kind, b.Kind), int(a.State)-int(b.State))
	}), err
}

// Queues returns the queues that have tasks or are paused.
func (s *Store) Queues(ctx context.Context) ([]durable.QueueInfo, error) {
	queues := map[string]durable.QueueInfo{}
	err := s.read(ctx, func(r *reader) error {
		v, err := newView(r)
		if err != nil {
			return err
		}
		now := s.clock.now()
		for id, l := range v.lanes {
			q := queues[l.queue]
			q.Name = l.queue
			// The next one to run, and the first of those that wait behind all others.
			for _, order := range []string{`priority DESC`, `priority`} {
				at, ok, err := r.one(`SELECT run_at FROM wake_task WHERE lane = ?1 AND state = 1
					AND priority = (SELECT priority FROM wake_task WHERE lane = ?1 AND state = 1 ORDER BY `+order+` LIMIT 1) ORDER BY seq LIMIT 1`, id)
				if err != nil {
					return err
				}
				if ok {
					q.Oldest = max(q.Oldest, now.Sub(timeOf(at)))
				}
			}
			queues[l.queue] = q
		}
		return r.query(func(row []driver.Value) error {
			q := queues[text(row[0])]
			q.Name, q.Paused = text(row[0]), true
			queues[q.Name] = q
			return nil
		}, `SELECT name FROM wake_queue WHERE paused`)
	})
	return slices.SortedFunc(maps.Values(queues), func(a, b durable.QueueInfo) int { return strings.Compare(a.Name, b.Name) }), err
}
