package sqlite_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/sqlite"
)

var (
	anything  = durable.Declare[any]("anything", durable.MaxAttempts(2), durable.WithBackoff(durable.Constant(0)))
	numbers   = durable.DeclareResult[float64, float64]("numbers")
	misbehave = durable.Declare[string]("misbehave", durable.MaxAttempts(2), durable.WithBackoff(durable.Constant(0)), durable.HardTimeout(300*time.Millisecond))
)

// nested is JSON of this many brackets.
func nested(deep int) []byte { return []byte(strings.Repeat("[", deep) + strings.Repeat("]", deep)) }

// Stored rows of any kind end where a person finds them, with the reason, and
// those behind them run.
func TestHostileRows(t *testing.T) {
	s := open(t, sqlite.Config{})
	q := durable.NewQueue(s)
	defer q.Close(context.Background())
	rows := map[string]struct {
		payload []byte
		kind    string
		state   durable.State
	}{
		"wrong shape":     {[]byte(`"a string"`), "numbers", durable.Dead},
		"no JSON":         {[]byte(`{"a":`), "anything", durable.Dead},
		"empty":           {[]byte{}, "anything", durable.Dead},
		"invalid UTF-8":   {[]byte("\xff\xfe"), "anything", durable.Dead},
		"NUL":             {[]byte("\x00"), "anything", durable.Dead},
		"10,001 deep":     {nested(10_001), "anything", durable.Dead},
		"9,000 deep":      {nested(9_000), "anything", durable.Succeeded},
		"a huge number":   {[]byte(`1e999`), "numbers", durable.Dead},
		"no such kind":    {[]byte(`1`), "nobody's", durable.Ready},
		"a result of NaN": {[]byte(`0`), "numbers", durable.Dead},
		"good":            {[]byte(`1`), "numbers", durable.Succeeded},
	}
	ids := map[string]durable.ID{}
	var ins []durable.Insert
	for name, row := range rows {
		in := newInsert(row.kind)
		in.Payload = row.payload
		ids[name] = in.ID
		ins = append(ins, in)
	}
	commit(t, s, &durable.Batch{Inserts: ins})
	run(t, q,
		anything.Run(func(context.Context, any) error { return nil }),
		numbers.Run(func(_ context.Context, n float64) (float64, error) {
			if n == 0 {
				return math.NaN(), nil
			}
			return n, nil
		}))
	for name, row := range rows {
		if !row.state.Finished() {
			continue
		}
		task := finished(t, q, ids[name])
		if task.State != row.state || task.Attempt != 1 || task.State == durable.Dead && len(task.Errors) != 1 {
			t.Errorf("%s: %+v, want %v after one attempt", name, task, row.state)
		}
	}
	if task, err := q.Get(t.Context(), ids["no such kind"]); err != nil || task.State != durable.Ready || task.Attempt != 0 {
		t.Errorf("an unknown kind was touched: %+v %v", task, err)
	}
}

// What cannot be stored is refused where it is added.
func TestWhatCannotBeAdded(t *testing.T) {
	q := durable.NewQueue(open(t, sqlite.Config{}))
	defer q.Close(context.Background())
	loop := []any{nil}
	loop[0] = loop
	for name, job := range map[string]durable.Job{
		"too large":       anything.With(strings.Repeat("x", 2<<20)),
		"a function":      anything.With(func() {}),
		"itself":          anything.With(loop),
		"not a number":    numbers.With(math.NaN()),
		"key with a NUL":  anything.With(1).Key("a\x00b"),
		"key not UTF-8":   anything.With(1).Key("\xff"),
		"tag of a line":   anything.With(1).Tags("a\nb"),
		"queue too long":  anything.With(1).Queue(strings.Repeat("q", 200)),
		"year 10,000":     anything.With(1).At(time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)),
		"no attempts":     anything.With(1).MaxAttempts(0),
		"priority":        anything.With(1).Priority(1 << 40),
		"an empty job":    {},
		"owner with ESC":  anything.With(1).Owner("\x1b[31m"),
		"twenty tags":     anything.With(1).Tags(strings.Fields(strings.Repeat("t ", 20))...),
		"thousands years": anything.With(1).In(math.MaxInt64),
	} {
		if id, err := q.Add(t.Context(), job); err == nil || !id.IsZero() {
			t.Errorf("%s was added", name)
		}
	}
	counts, err := q.Counts(t.Context())
	if err != nil || len(counts) > 0 {
		t.Errorf("stored: %+v %v", counts, err)
	}
}

// Tasks that do what they should not are parked; the others go on.
func TestMisbehavingTasks(t *testing.T) {
	s := open(t, sqlite.Config{})
	q := durable.NewQueue(s)
	defer q.Close(context.Background())
	released := make(chan struct{})
	run(t, q, misbehave.Run(func(ctx context.Context, how string) error {
		switch how {
		case "panic":
			panic("oh")
		case "index":
			var ids []durable.ID
			_ = ids[len(how)]
		case "goexit":
			runtime.Goexit()
		case "ignore":
			<-released
		case "strange error":
			return errors.New("\xff\x00" + strings.Repeat("x", 1<<20))
		case "error that panics":
			return badError{}
		}
		return nil
	}))
	t.Cleanup(func() { close(released) }) // before the engine is drained
	for how, want := range map[string]string{
		"panic": "panic", "index": "panic", "goexit": "panic", "ignore": "timeout", "strange error": "error", "error that panics": "",
	} {
		id, err := q.Add(t.Context(), misbehave.With(how))
		if err != nil {
			t.Fatal(err)
		}
		task := finished(t, q, id)
		if task.State != durable.Dead || task.Attempt != 2 || len(task.Errors) != 2 {
			t.Errorf("%s: %+v", how, task)
		} else if want != "" && task.Errors[1].Cause != want {
			t.Errorf("%s: cause %q, want %q", how, task.Errors[1].Cause, want)
		}
	}
	id, err := q.Add(t.Context(), misbehave.With("nothing"))
	if err != nil {
		t.Fatal(err)
	}
	if task := finished(t, q, id); task.State != durable.Succeeded {
		t.Errorf("a good task after them: %+v", task)
	}
}

type badError struct{}

func (badError) Error() string { panic("an error that panics when it is read") }

// run runs an engine until the test ends.
func run(t *testing.T, q *durable.Queue, handlers ...durable.Handler) {
	t.Helper()
	e := durable.NewEngine(q, handlers...)
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var late *durable.AbandonedError // what was given up may be on its way
		if err := e.Drain(context.Background()); err != nil && !errors.As(err, &late) {
			t.Error(err)
		}
	})
}

// finished waits until a task is.
func finished(t *testing.T, q *durable.Queue, id durable.ID) *durable.Task {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	task, err := q.WaitFor(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	return task
}
