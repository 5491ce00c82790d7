package sqlite

import (
	"database/sql/driver"

	"github.com/wake-go/wake/durable"
)

// A lane is a queue and a kind: what ready tasks are indexed by, so that no
// claim looks at a task that it cannot have.
type lane struct{ queue, kind string }

// lanes is what the writer knows without asking. It holds for as long as
// nobody else commits, and is forgotten when a transaction is rolled back.
type lanes struct {
	version int64 // of the file's content, as others change it
	known   bool
	byName  map[lane]int64
	byID    map[int64]lane
	paused  map[string]bool
	empty   map[int64]bool // lanes that have no ready task
	due     int64          // of the next scheduled task, in microseconds; 0: there is none
	dueOK   bool
}

// begin forgets everything.
func (l *lanes) begin() { *l = lanes{} }

// refresh finds out, in a transaction, whether what is known still holds.
func (w *writer) refresh() error {
	version, _, err := w.one(`PRAGMA data_version`)
	if err != nil || w.lanes.known && version == w.lanes.version {
		return err
	}
	w.lanes = lanes{version: version, known: true, byName: map[lane]int64{}, byID: map[int64]lane{}, paused: map[string]bool{}, empty: map[int64]bool{}}
	err = w.query(func(row []driver.Value) error {
		w.lanes.add(integer(row[0]), lane{text(row[1]), text(row[2])})
		return nil
	}, `SELECT id, queue, kind FROM wake_lane`)
	if err != nil {
		return err
	}
	return w.query(func(row []driver.Value) error {
		w.lanes.paused[text(row[0])] = true
		return nil
	}, `SELECT name FROM wake_queue WHERE paused`)
}

func (l *lanes) add(id int64, name lane) { l.byName[name], l.byID[id] = id, name }

// lane returns the number of a lane, which it creates if there is none.
func (w *writer) lane(queue, kind string) (int64, error) {
	name := lane{queue, kind}
	if id, ok := w.lanes.byName[name]; ok {
		return id, nil
	}
	id, err := w.insert(`INSERT INTO wake_lane (queue, kind) VALUES (?, ?)`, queue, kind)
	if err != nil {
		return 0, err
	}
	w.lanes.add(id, name)
	return id, nil
}

// inserted notes that a lane has got a task.
func (w *writer) inserted(lane int64, state durable.State, runAt int64) {
	switch state {
	case durable.Ready:
		delete(w.lanes.empty, lane)
	case durable.Scheduled:
		if w.lanes.dueOK && (w.lanes.due == 0 || runAt < w.lanes.due) {
			w.lanes.due = runAt
		}
	}
}

// nextDue returns when the next scheduled task becomes ready; 0: never.
func (w *writer) nextDue() (int64, error) {
	if !w.lanes.dueOK {
		due, _, err := w.one(`SELECT run_at FROM wake_task WHERE state = 3 ORDER BY run_at LIMIT 1`)
		if err != nil {
			return 0, err
		}
		w.lanes.due, w.lanes.dueOK = due, true
	}
	return w.lanes.due, nil
}

// maxPromoted is how many scheduled tasks become ready in one transaction.
const maxPromoted = 1000

// promote makes scheduled tasks ready whose time has come.
func (w *writer) promote(now int64) error {
	due, err := w.nextDue()
	if err != nil || due == 0 || due > now {
		return err
	}
	_, err = w.exec(`UPDATE wake_task SET state = 1 WHERE seq IN
		(SELECT seq FROM wake_task WHERE state = 3 AND run_at <= ? ORDER BY run_at LIMIT ?)`, now, maxPromoted)
	w.lanes.dueOK = false
	w.lanes.empty = map[int64]bool{}
	return err
}

func text(v driver.Value) string {
	switch s := v.(type) {
	case string:
		return s
	case []byte:
		return string(s)
	}
	return ""
}
