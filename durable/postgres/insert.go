package postgres

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wake-go/wake/durable"
)

// inline is the size up to which a payload is in its task's row, which moves
// when the task is finished. A larger one has a row of its own, which does not.
const inline = 1 << 10

// A newTask is an Insert as it is stored.
type newTask struct {
	in    *durable.Insert
	index int // among the inserts
	lane  int32
	ukey  *[16]byte
}

// keyOf is what makes a key unique: it belongs to a kind, and has a fixed size.
func keyOf(kind, key string) *[16]byte {
	if key == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(kind + "\x00" + key))
	return (*[16]byte)(sum[:16])
}

// checkInsert refuses what cannot be stored, so that it fails alone.
func checkInsert(in *durable.Insert) error {
	texts := append([]string{in.Kind, in.Queue, in.Key}, in.Tags...)
	for _, text := range texts {
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			return fmt.Errorf("durable: postgres: the name %q is not UTF-8 without NUL bytes", text[:min(len(text), 64)])
		}
	}
	if in.Kind == "" || in.Queue == "" || in.ID.IsZero() {
		return fmt.Errorf("durable: postgres: a task needs an id, a kind and a queue; it has %v, %q and %q", in.ID, in.Kind, in.Queue)
	}
	return nil
}

// newTasks checks inserts and finds their lanes. Of those that cannot be
// stored the answer says why.
func (s *Store) newTasks(ctx context.Context, ins []durable.Insert, out []durable.Inserted) ([]newTask, error) {
	tasks := make([]newTask, 0, len(ins))
	for i := range ins {
		in := &ins[i]
		out[i] = durable.Inserted{ID: in.ID}
		if out[i].Err = checkInsert(in); out[i].Err != nil {
			continue
		}
		lane, err := s.lane(ctx, laneOf(in))
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, newTask{in, i, lane, keyOf(in.Kind, in.Key)})
	}
	return tasks, nil
}

const (
	insertTasks = `WITH clock AS MATERIALIZED (SELECT ` + clock + ` AS now),
	given AS (
		SELECT i.*, CASE WHEN i.delay > 0 THEN clock.now + i.delay * interval '1 microsecond' ELSE coalesce(i.at, clock.now) END AS due, clock.now
		FROM clock, unnest($2::uuid[], $3::integer[], $4::smallint[], $5::bigint[], $6::timestamptz[], $7::integer[], $8::bytea[], $9::bytea[], $10::uuid[])
			WITH ORDINALITY AS i (id, lane, rank, delay, at, max_attempts, opts, payload, ukey, n)
	)
	INSERT INTO wake.task (id, lane, state, rank, run_at, created_at, max_attempts, opts, payload, ukey)
	SELECT id, lane, CASE WHEN due > now THEN 3 ELSE 1 END, rank, due, now, max_attempts, opts, payload, ukey FROM given`

	// In the order of the keys, so that two batches cannot wait for each other.
	insertKeyed = insertTasks + ` ORDER BY ukey, n ON CONFLICT (ukey) WHERE ukey IS NOT NULL DO NOTHING RETURNING id::text`

	insertBlobs = `INSERT INTO wake.blob (id, payload) SELECT * FROM unnest($1::uuid[], $2::bytea[])`
	insertTags  = `INSERT INTO wake.tag (tag, id) SELECT * FROM unnest($1::text[], $2::uuid[]) ON CONFLICT DO NOTHING`
	insertAlias = `INSERT INTO wake.alias (id, target) SELECT * FROM unnest($1::uuid[], $2::uuid[]) ON CONFLICT DO NOTHING`
)

// columns are tasks as the parameters of insertTasks.
type columns struct {
	ids      [][16]byte
	lanes    []int32
	ranks    []int16
	delays   []int64
	times    []*time.Time
	attempts []int32
	opts     [][]byte
	payloads [][]byte
	keys     []*[16]byte

	blobIDs [][16]byte
	blobs   [][]byte
	tags    []string
	tagged  [][16]byte
}

func (c *columns) add(t *newTask) {
	in := t.in
	c.ids = append(c.ids, in.ID)
	c.lanes = append(c.lanes, t.lane)
	c.ranks = append(c.ranks, rankOf(in.Priority))
	c.delays = append(c.delays, in.Delay.Microseconds())
	var at *time.Time
	if !in.At.IsZero() {
		at = &in.At
	}
	c.times = append(c.times, at)
	c.attempts = append(c.attempts, int32(in.MaxAttempts))
	c.opts = append(c.opts, durable.EncodeOptions(in))
	c.keys = append(c.keys, t.ukey)
	c.payloads = append(c.payloads, inlined(in.Payload))
}

// addExtras adds what is beside the row of a task.
func (c *columns) addExtras(t *newTask) {
	in := t.in
	if len(in.Payload) > inline {
		c.blobIDs = append(c.blobIDs, in.ID)
		c.blobs = append(c.blobs, in.Payload)
	}
	for _, tag := range in.Tags {
		c.tags = append(c.tags, tag)
		c.tagged = append(c.tagged, in.ID)
	}
}

// inlined is the payload in a task's row; none says that it has its own.
func inlined(payload []byte) []byte {
	switch {
	case len(payload) > inline:
		return nil
	case payload == nil:
		return []byte{}
	}
	return payload
}

func (c *columns) args(clock int64) []any {
	return []any{clock, c.ids, c.lanes, c.ranks, c.delays, c.times, c.attempts, c.opts, c.payloads, c.keys}
}

func (c *columns) runExtras(ctx context.Context, r runner) error {
	if len(c.blobs) > 0 {
		if err := r.run(ctx, nil, insertBlobs, c.blobIDs, c.blobs); err != nil {
			return err
		}
	}
	if len(c.tags) > 0 {
		return r.run(ctx, nil, insertTags, c.tags, c.tagged)
	}
	return nil
}

// insertPlain inserts tasks that are new and have no keys.
func (s *Store) insertPlain(ctx context.Context, r runner, tasks []newTask) error {
	if len(tasks) == 0 {
		return nil
	}
	c := &columns{}
	for i := range tasks {
		c.add(&tasks[i])
		c.addExtras(&tasks[i])
	}
	if err := r.run(ctx, nil, insertTasks, c.args(s.clockArg())...); err != nil {
		return err
	}
	return c.runExtras(ctx, r)
}

// keyTries is how often a key is tried whose holder ends meanwhile.
const keyTries = 10

// insertKeys inserts tasks that may have keys. Those whose keys others hold
// become other names for the holders.
func (s *Store) insertKeys(ctx context.Context, r runner, tasks []newTask, out []durable.Inserted) error {
	extras, aliases := &columns{}, [2][][16]byte{}
	for try := 0; len(tasks) > 0; try++ {
		if try == keyTries {
			return fmt.Errorf("durable: postgres: %w: the holders of %d keys changed %d times", durable.ErrUnavailable, len(tasks), try)
		}
		inserted, err := s.insertFree(ctx, r, tasks)
		if err != nil {
			return err
		}
		var taken []newTask
		for i := range tasks {
			if t := &tasks[i]; inserted[t.in.ID] {
				out[t.index] = durable.Inserted{ID: t.in.ID}
				extras.addExtras(t)
			} else {
				taken = append(taken, *t)
			}
		}
		holders, err := holdersOf(ctx, r, taken)
		if err != nil {
			return err
		}
		tasks = tasks[:0:0]
		for _, t := range taken {
			holder, ok := holders[*t.ukey]
			if !ok {
				tasks = append(tasks, t)
				continue
			}
			out[t.index] = durable.Inserted{ID: holder, Duplicate: true}
			aliases[0], aliases[1] = append(aliases[0], t.in.ID), append(aliases[1], holder)
		}
	}
	if len(aliases[0]) > 0 {
		if err := r.run(ctx, nil, insertAlias, aliases[0], aliases[1]); err != nil {
			return err
		}
	}
	return extras.runExtras(ctx, r)
}

// insertFree inserts the tasks whose keys are free.
func (s *Store) insertFree(ctx context.Context, r runner, tasks []newTask) (map[durable.ID]bool, error) {
	c := &columns{}
	for i := range tasks {
		c.add(&tasks[i])
	}
	inserted := map[durable.ID]bool{}
	err := r.run(ctx, func(row row) error {
		id, err := scanID(row)
		inserted[id] = true
		return err
	}, insertKeyed, c.args(s.clockArg())...)
	return inserted, err
}

// holdersOf returns the unfinished tasks that have the keys of others.
func holdersOf(ctx context.Context, r runner, tasks []newTask) (map[[16]byte]durable.ID, error) {
	if len(tasks) == 0 {
		return nil, nil
	}
	var keys [][16]byte
	for _, t := range tasks {
		if t.ukey == nil {
			return nil, fmt.Errorf("durable: postgres: task %v was not inserted, though it has no key", t.in.ID)
		}
		keys = append(keys, *t.ukey)
	}
	holders := map[[16]byte]durable.ID{}
	err := r.run(ctx, func(row row) error {
		var key, id string
		if err := row.Scan(&key, &id); err != nil {
			return err
		}
		parsed, err := durable.ParseID(key)
		if err == nil {
			holders[parsed], err = durable.ParseID(id)
		}
		return err
	}, `SELECT ukey::text, id::text FROM wake.task WHERE ukey = ANY($1::uuid[])`, keys)
	return holders, err
}

// known settles the tasks that are there already, from a commit whose answer
// was lost, and returns the others.
func (s *Store) known(ctx context.Context, r runner, tasks []newTask, out []durable.Inserted) ([]newTask, error) {
	var ids [][16]byte
	for _, t := range tasks {
		ids = append(ids, t.in.ID)
	}
	existing := map[durable.ID]durable.ID{}
	err := r.run(ctx, func(row row) error {
		var given, found string
		if err := row.Scan(&given, &found); err != nil {
			return err
		}
		id, err := durable.ParseID(given)
		if err == nil {
			existing[id], err = durable.ParseID(found)
		}
		return err
	}, `SELECT id::text, id::text FROM wake.task WHERE id = ANY($1::uuid[])
		UNION ALL SELECT id::text, id::text FROM wake.done WHERE id = ANY($1::uuid[])
		UNION ALL SELECT id::text, target::text FROM wake.alias WHERE id = ANY($1::uuid[])`, ids)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(tasks, func(t newTask) bool {
		id, ok := existing[t.in.ID]
		if ok {
			out[t.index] = durable.Inserted{ID: id, Duplicate: id != t.in.ID}
		}
		return ok
	}), nil
}

// insertAll inserts tasks in an open transaction.
func (s *Store) insertAll(ctx context.Context, r runner, ins []durable.Insert, again bool) ([]durable.Inserted, error) {
	out := make([]durable.Inserted, len(ins))
	tasks, err := s.newTasks(ctx, ins, out)
	if err == nil && again {
		tasks, err = s.known(ctx, r, tasks, out)
	}
	if err != nil {
		return nil, err
	}
	var plain, keyed []newTask
	for _, t := range tasks {
		if t.ukey == nil {
			plain = append(plain, t)
		} else {
			keyed = append(keyed, t)
		}
	}
	if err := s.insertPlain(ctx, r, plain); err != nil {
		return nil, err
	}
	return out, s.insertKeys(ctx, r, keyed, out)
}

// byID sorts tasks, so that two transactions cannot wait for each other.
func byID(tasks []newTask) []newTask {
	slices.SortFunc(tasks, func(a, b newTask) int {
		return cmp.Or(slices.Compare(a.in.ID[:], b.in.ID[:]), cmp.Compare(a.index, b.index))
	})
	return tasks
}

func scanID(row row) (durable.ID, error) {
	var text string
	if err := row.Scan(&text); err != nil {
		return durable.ID{}, err
	}
	return durable.ParseID(text)
}
