package postgres

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/wake-go/wake/durable"
)

const (
	// A process claims under a lock that whoever takes its tasks away holds
	// alone, so that it cannot get one after that.
	claimLock = `SELECT pg_advisory_xact_lock_shared($1::bigint)`

	// Candidates are chosen without locks, as a lock for each of a lane's would
	// be one for tasks that are not taken; not before their lane's cursor, unless
	// tasks were promoted in this transaction, which may be older. There are more of them than wanted, as
	// others choose, too. They are found again by their ids: see isRunning. The
	// first row says how many there were.
	claimTasks = `WITH clock AS MATERIALIZED (SELECT ` + clock + ` AS now),
	lane AS MATERIALIZED (
		SELECT l.id, l.kind, CASE WHEN fresh THEN g.rank ELSE -32768 END AS rank, g.cursor
		FROM unnest($3::text[], $4::smallint[], $5::uuid[]) AS g (kind, rank, cursor)
		CROSS JOIN (SELECT coalesce(current_setting('wake_batch.promoted', true), '') IN ('', '0') AS fresh) b
		JOIN wake.lane l ON l.queue = $2::text AND l.kind = g.kind
		WHERE NOT EXISTS (SELECT 1 FROM wake.queue q WHERE q.name = $2::text AND q.paused)
			AND EXISTS (SELECT 1 FROM wake.node n WHERE n.boot = $6::uuid AND n.lease_until > '-infinity')
	),
	candidate AS MATERIALIZED (
		SELECT c.id FROM lane CROSS JOIN LATERAL (
			SELECT t.rank, t.id FROM wake.task t
			WHERE t.lane = lane.id AND t.state = 1 AND (t.rank, t.id) >= (lane.rank, lane.cursor) AND t.crashes < $9::integer
			ORDER BY t.rank, t.id LIMIT $7::integer + $8::integer
		) c ORDER BY c.rank, c.id LIMIT $7::integer + $8::integer
	),
	held AS MATERIALIZED (
		SELECT t.id FROM wake.task t WHERE t.id = ANY(ARRAY(SELECT id FROM candidate)) AND t.state BETWEEN 1 AND 1
		ORDER BY t.rank, t.id LIMIT $7::integer FOR UPDATE SKIP LOCKED
	),
	mine AS (
		UPDATE wake.task t SET state = 2, boot = $6::uuid, started_at = clock.now, fence = t.fence + 1, attempt = t.attempt + 1
		FROM held, clock WHERE t.id = held.id
		RETURNING t.id, t.lane, t.rank, t.fence, t.attempt, t.crashes, t.max_attempts, t.created_at, t.run_at, t.opts, t.payload
	)
	SELECT (SELECT count(*) FROM candidate), mine.id, lane.kind, mine.rank, mine.fence, mine.attempt, mine.crashes, mine.max_attempts,
		mine.created_at, mine.run_at, mine.opts, coalesce(mine.payload, (SELECT b.payload FROM wake.blob b WHERE b.id = mine.id))
	FROM (SELECT 1) one LEFT JOIN mine ON true LEFT JOIN lane ON lane.id = mine.lane`
)

// claimKey is the number of the lock under which a process claims.
func claimKey(boot durable.Boot) int64 { return lockKey(boot) ^ 1 }

// An asked claim is one under way.
type asked struct {
	claim   *durable.Claim
	cursors []cursor
	epoch   int  // of the cursors
	whole   bool // looks at everything that is ready
	spare   int  // candidates beyond the limit
	seen    int64
	got     []durable.Claimed
}

func (a *asked) short() bool { return len(a.got) < a.claim.Limit }

// claim queues the statement of a claim.
func (s *Store) claim(ctx context.Context, r runner, boot durable.Boot, a *asked) error {
	a.got, a.seen = nil, 0
	ranks, ids := make([]int16, len(a.cursors)), make([][16]byte, len(a.cursors))
	for i, c := range a.cursors {
		ranks[i], ids[i] = c.rank, c.id
	}
	crashes := math.MaxInt32
	if a.claim.Calm {
		crashes = durable.MaxCrashes - 1
	}
	return r.run(ctx, a.scan, claimTasks, s.clockArg(), a.claim.Queue, a.claim.Kinds, ranks, ids, boot[:], a.claim.Limit, a.spare, crashes)
}

func (a *asked) scan(row row) error {
	var id *[16]byte
	var kind *string
	var rank, attempt, crashes, most *int32
	var fence *int64
	var created, due *time.Time
	var opts, payload []byte
	if err := row.Scan(&a.seen, &id, &kind, &rank, &fence, &attempt, &crashes, &most, &created, &due, &opts, &payload); err != nil || id == nil {
		return err
	}
	c := durable.Claimed{
		Ref: durable.Ref{ID: *id, Fence: *fence}, Kind: *kind, Queue: a.claim.Queue, Priority: -int(*rank),
		Attempt: int(*attempt), Crashes: int(*crashes), MaxAttempts: int(*most),
		CreatedAt: created.UTC(), RunAt: due.UTC(), Payload: payload,
	}
	if c.Payload == nil {
		c.Payload = []byte{}
	}
	c.Tags, c.Timeout, c.Key, c.Meta = durable.DecodeOptions(opts)
	a.got = append(a.got, c)
	return nil
}

// claims prepares the claims of a batch.
func (s *Store) claims(b *durable.Batch) []*asked {
	var all []*asked
	now := time.Now()
	for i := range b.Claims {
		if c := &b.Claims[i]; c.Limit > 0 && len(c.Kinds) > 0 {
			a := &asked{claim: c, epoch: s.cursors.now(), spare: s.cursors.spare(false)}
			a.cursors, a.whole = s.cursors.get(c.Queue, c.Kinds, now)
			all = append(all, a)
		}
	}
	return all
}

// runClaims queues the statements of claims.
func (s *Store) runClaims(ctx context.Context, r runner, boot durable.Boot, claims []*asked) error {
	if len(claims) == 0 {
		return nil
	}
	if err := r.run(ctx, nil, claimLock, claimKey(boot)); err != nil {
		return err
	}
	for _, a := range claims {
		if err := s.claim(ctx, r, boot, a); err != nil {
			return err
		}
	}
	return nil
}

// claimRounds is how often a claim is repeated that others were faster at.
const claimRounds = 5

// claimed collects what was claimed. Where that is less than was asked for,
// though there may be more, it claims again: what is claimed then goes beside
// the batch, and if that fails, Reconcile finds it.
func (s *Store) claimed(ctx context.Context, boot durable.Boot, claims []*asked, took time.Duration) []durable.Claimed {
	var all []durable.Claimed
	for round := 0; ; round++ {
		var more []*asked
		for _, a := range claims {
			s.cursors.note(a, took)
			slices.SortFunc(a.got, func(x, y durable.Claimed) int {
				return cmp.Or(cmp.Compare(y.Priority, x.Priority), slices.Compare(x.Ref.ID[:], y.Ref.ID[:]))
			})
			all = append(all, a.got...)
			switch next := s.again(a); {
			case next != nil && round < claimRounds:
				more = append(more, next)
			case next != nil:
				s.signals.later(rewindLeast, durable.SignalTasks)
			}
		}
		if claims = more; len(claims) == 0 {
			return all
		}
		start := time.Now()
		if s.pipelined(ctx, func(p *pipeline) error { return s.runClaims(ctx, p, boot, claims) }) != nil {
			return all
		}
		took = time.Since(start)
	}
}

// again is the rest of a claim that may get more, nil if there is none. When
// everything that is ready has just been looked at, the engine is told to ask
// again a little later.
func (s *Store) again(a *asked) *asked {
	if !a.short() {
		return nil
	}
	rest := *a.claim
	rest.Limit -= len(a.got)
	next := &asked{claim: &rest, cursors: a.cursors, whole: a.whole, epoch: a.epoch}
	contended := a.seen > int64(len(a.got)) // others were faster
	next.spare = s.cursors.spare(contended)
	switch {
	case contended:
		return next
	case a.whole:
		return nil
	case !s.cursors.mayRewind(time.Now()):
		s.signals.later(rewindLeast, durable.SignalTasks)
		return nil
	}
	next.cursors, next.whole, next.epoch = beginnings(len(a.cursors)), true, s.cursors.now()
	return next
}
