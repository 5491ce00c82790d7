package postgres

import (
	"context"
	"sync"

	"github.com/wake-go/wake/durable"
)

// A lane is a queue and a kind: what ready tasks are indexed by, so that no
// claim looks at a task that it cannot have.
type lane struct{ queue, kind string }

// lanes are those whose numbers this process knows. They never change.
type lanes struct {
	mu   sync.RWMutex
	byID map[lane]int32
}

func (l *lanes) get(name lane) (int32, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	id, ok := l.byID[name]
	return id, ok
}

func (l *lanes) put(name lane, id int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byID == nil {
		l.byID = map[lane]int32{}
	}
	l.byID[name] = id
}

// lane returns the number of a lane. A new one is made in a transaction of its
// own: it stays whatever becomes of the task that needed it, and nobody else
// who needs it has to wait.
func (s *Store) lane(ctx context.Context, name lane) (int32, error) {
	if id, ok := s.lanes.get(name); ok {
		return id, nil
	}
	var id int32
	err := s.retried(ctx, func() error {
		for {
			db := tx{s, s.pool}
			found, err := one(ctx, db, []any{&id}, `SELECT id FROM wake.lane WHERE queue = $1 AND kind = $2`, name.queue, name.kind)
			if found || err != nil {
				return err
			}
			if err := db.run(ctx, nil, `INSERT INTO wake.lane (queue, kind) VALUES ($1, $2) ON CONFLICT DO NOTHING`, name.queue, name.kind); err != nil {
				return err
			}
		}
	})
	if err == nil {
		s.lanes.put(name, id)
	}
	return id, err
}

// rankOf is the order of a priority: a smaller rank is claimed first.
func rankOf(priority int) int16 { return int16(min(max(-priority, -30_000), 30_000)) }

// laneOf is that of a task.
func laneOf(in *durable.Insert) lane { return lane{in.Queue, in.Kind} }
