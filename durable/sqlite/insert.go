package sqlite

import (
	"context"
	"crypto/sha256"
	"database/sql/driver"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wake-go/wake/durable"
)

// inline is the size up to which a payload is in its task's row, which moves
// when the task is finished. A larger one has a row of its own, which does not.
const inline = 1 << 10

// Bits of the column extras: what else belongs to a task.
const (
	hasBlob = 1 << iota
	hasErrors
	hasTags
	hasAlias
)

// An execer runs the store's statements: the writer, or a user's transaction.
type execer interface {
	exec(query string, args ...any) (int64, error)
	insert(query string, args ...any) (int64, error)
	query(f func([]driver.Value) error, query string, args ...any) error
	one(query string, args ...any) (int64, bool, error)
	lane(queue, kind string) (int64, error)
	inserted(lane int64, state durable.State, runAt int64)
}

// A newTask is an Insert as it is stored.
type newTask struct {
	in     *durable.Insert
	lane   int64
	state  durable.State
	runAt  int64
	ukey   []byte
	extras int64
	opts   []byte
}

// keyOf is what makes a key unique: it belongs to a kind, and has a fixed size.
func keyOf(kind, key string) []byte {
	if key == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(kind + "\x00" + key))
	return sum[:16]
}

func newTaskOf(x execer, in *durable.Insert, now time.Time) (t newTask, err error) {
	for what, s := range map[string]string{"kind": in.Kind, "queue": in.Queue, "key": in.Key} {
		if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
			return t, fmt.Errorf("durable: sqlite: the %s %q is not UTF-8 without NUL bytes", what, s)
		}
	}
	if in.Kind == "" || in.Queue == "" || in.ID.IsZero() {
		return t, fmt.Errorf("durable: sqlite: a task needs an id, a kind and a queue; it has %v, %q and %q", in.ID, in.Kind, in.Queue)
	}
	t = newTask{in: in, state: durable.Ready, ukey: keyOf(in.Kind, in.Key), opts: durable.EncodeOptions(in)}
	if t.lane, err = x.lane(in.Queue, in.Kind); err != nil {
		return t, err
	}
	at := now
	if in.Delay > 0 {
		at = now.Add(in.Delay)
	} else if !in.At.IsZero() {
		at = in.At
	}
	t.runAt = micros(at)
	if at.After(now) {
		t.state = durable.Scheduled
	}
	if len(in.Payload) > inline {
		t.extras |= hasBlob
	}
	if len(in.Tags) > 0 {
		t.extras |= hasTags
	}
	return t, nil
}

const (
	insertColumns = `INSERT INTO wake_task (created_at, id, lane, state, priority, run_at, max_attempts, opts, payload, ukey, extras) VALUES `

	// A row that has nothing that few have. The first parameter is the time.
	row1  = `(?1, ?, ?, ?, ?, ?, ?, ?, ?, NULL, 0)`
	row4  = row1 + `, ` + row1 + `, ` + row1 + `, ` + row1
	row16 = row4 + `, ` + row4 + `, ` + row4 + `, ` + row4
	row64 = row16 + `, ` + row16 + `, ` + row16 + `, ` + row16

	insertOne   = insertColumns + `(?1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	insertKeyed = insertOne + ` ON CONFLICT (ukey) WHERE ukey IS NOT NULL DO NOTHING`
)

// insertChunk returns how many of n rows one statement takes, and that one.
func insertChunk(n int) (int, string) {
	switch {
	case n >= 64:
		return 64, insertColumns + row64
	case n >= 16:
		return 16, insertColumns + row16
	case n >= 4:
		return 4, insertColumns + row4
	}
	return 1, insertColumns + row1
}

// rowArgs are the parameters of a plain row.
func (t *newTask) rowArgs(args []any) []any {
	payload := t.in.Payload
	if payload == nil {
		payload = []byte{}
	}
	if t.extras&hasBlob != 0 {
		payload = nil
	}
	return append(args, t.in.ID, t.lane, t.state, t.in.Priority, t.runAt, t.in.MaxAttempts, t.opts, payload)
}

// args are those of insertOne.
func (t *newTask) args(now time.Time) []any {
	args := append(make([]any, 0, 11), micros(now))
	return append(t.rowArgs(args), t.ukey, t.extras)
}

// insertAll inserts tasks, in their order.
func insertAll(x execer, ins []durable.Insert, now time.Time, again bool, out []durable.Inserted) ([]durable.Inserted, error) {
	var simple []newTask // wait to be inserted together
	flush := func() error {
		err := insertMany(x, simple, now)
		simple = simple[:0]
		return err
	}
	for i := range ins {
		in := &ins[i]
		t, err := newTaskOf(x, in, now)
		if err != nil {
			out = append(out, durable.Inserted{ID: in.ID, Err: err})
			continue
		}
		if t.ukey == nil && t.extras == 0 && !again {
			simple = append(simple, t)
			out = append(out, durable.Inserted{ID: in.ID})
			continue
		}
		if err := flush(); err != nil {
			return out, err
		}
		done, err := insertSingle(x, &t, now, again)
		if err != nil {
			return out, err
		}
		out = append(out, done)
	}
	return out, flush()
}

func insertMany(x execer, tasks []newTask, now time.Time) error {
	for len(tasks) > 0 {
		n, statement := insertChunk(len(tasks))
		args := append(make([]any, 0, 1+8*n), micros(now))
		for i := range tasks[:n] {
			args = tasks[i].rowArgs(args)
		}
		if _, err := x.exec(statement, args...); err != nil {
			return err
		}
		for i := range tasks[:n] {
			x.inserted(tasks[i].lane, tasks[i].state, tasks[i].runAt)
		}
		tasks = tasks[n:]
	}
	return nil
}

// insertSingle inserts a task that has something that few have.
func insertSingle(x execer, t *newTask, now time.Time, again bool) (durable.Inserted, error) {
	done := durable.Inserted{ID: t.in.ID}
	if again {
		existing, found, err := find(x, t.in.ID)
		if err != nil || found {
			done.ID, done.Duplicate = existing, existing != t.in.ID
			return done, err
		}
	}
	if t.ukey != nil {
		n, err := x.exec(insertKeyed, t.args(now)...)
		if err != nil {
			return done, err
		}
		if n == 0 {
			done.Duplicate = true
			done.ID, err = alias(x, t)
			return done, err
		}
	} else if _, err := x.exec(insertOne, t.args(now)...); err != nil {
		return done, err
	}
	x.inserted(t.lane, t.state, t.runAt)
	if t.extras&hasBlob != 0 {
		if _, err := x.exec(`INSERT INTO wake_blob (seq, payload) SELECT seq, ? FROM wake_task WHERE id = ?`, t.in.Payload, t.in.ID); err != nil {
			return done, err
		}
	}
	for _, tag := range t.in.Tags {
		if _, err := x.exec(`INSERT INTO wake_tag (tag, id) VALUES (?, ?) ON CONFLICT DO NOTHING`, tag, t.in.ID); err != nil {
			return done, err
		}
	}
	return done, nil
}

// alias makes the id of a duplicate another name for the task that has its key.
func alias(x execer, t *newTask) (durable.ID, error) {
	var existing durable.ID
	err := x.query(func(row []driver.Value) error { existing = idOf(row[0]); return nil }, `SELECT id FROM wake_task WHERE ukey = ?`, t.ukey)
	if err != nil {
		return existing, err
	}
	if _, err := x.exec(`UPDATE wake_task SET extras = extras | ? WHERE id = ?`, hasAlias, existing); err != nil {
		return existing, err
	}
	_, err = x.exec(`INSERT INTO wake_alias (id, target) VALUES (?, ?) ON CONFLICT DO NOTHING`, t.in.ID, existing)
	return existing, err
}

// find returns the id of the task that has this one, or that it is an alias of.
func find(x execer, id durable.ID) (existing durable.ID, found bool, err error) {
	err = x.query(func(row []driver.Value) error {
		existing, found = idOf(row[0]), true
		return nil
	}, `SELECT id FROM wake_task WHERE id = ?1 UNION ALL SELECT id FROM wake_done WHERE id = ?1 UNION ALL SELECT target FROM wake_alias WHERE id = ?1 LIMIT 1`, id)
	return existing, found, err
}

// InsertTx inserts tasks in a user's transaction.
func (s *Store) InsertTx(ctx context.Context, tx durable.Tx, ins []durable.Insert) ([]durable.Inserted, error) {
	x, err := s.userTx(ctx, tx)
	if err != nil {
		return nil, err
	}
	if s.ballast.missing() {
		return nil, errDiskFull()
	}
	out, err := insertAll(x, ins, s.clock.now(), false, nil)
	return out, explained(err)
}
