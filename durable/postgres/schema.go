package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// migrations bring a schema from each version to the next. What is here has
// been released: it is never changed, only added to. Statements name tables in
// the schema wake, which Store.sql replaces.
var migrations = [...]string{`
CREATE TABLE wake.lane (
	id    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	queue text NOT NULL,
	kind  text NOT NULL,
	UNIQUE (queue, kind)
);

CREATE TABLE wake.queue (
	name   text PRIMARY KEY,
	paused boolean NOT NULL DEFAULT false
);

CREATE TABLE wake.task (
	id           uuid        PRIMARY KEY,
	lane         integer     NOT NULL,
	state        smallint    NOT NULL,
	rank         smallint    NOT NULL,
	attempt      integer     NOT NULL DEFAULT 0,
	crashes      integer     NOT NULL DEFAULT 0,
	max_attempts integer     NOT NULL,
	fence        bigint      NOT NULL DEFAULT 0,
	boot         uuid,
	run_at       timestamptz NOT NULL,
	created_at   timestamptz NOT NULL,
	started_at   timestamptz,
	cancel_at    timestamptz,
	progress_at  timestamptz,
	ukey         uuid,
	limit_key    text,
	group_id     uuid,
	parent_id    uuid,
	progress     bytea,
	opts         bytea,
	payload      bytea
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX task_ready     ON wake.task (lane, rank, id) WHERE state = 1;
CREATE INDEX task_running   ON wake.task (boot)           WHERE state = 2;
CREATE INDEX task_scheduled ON wake.task (run_at)         WHERE state = 3;
CREATE INDEX task_cancelled ON wake.task (boot)           WHERE cancel_at IS NOT NULL;
CREATE UNIQUE INDEX task_key ON wake.task (ukey) WHERE ukey IS NOT NULL;

CREATE TABLE wake.done (
	id           uuid        PRIMARY KEY,
	lane         integer     NOT NULL,
	state        smallint    NOT NULL,
	rank         smallint    NOT NULL,
	attempt      integer     NOT NULL,
	crashes      integer     NOT NULL,
	max_attempts integer     NOT NULL,
	fence        bigint      NOT NULL,
	boot         uuid,
	run_at       timestamptz NOT NULL,
	created_at   timestamptz NOT NULL,
	started_at   timestamptz,
	cancel_at    timestamptz,
	finished_at  timestamptz NOT NULL,
	progress_at  timestamptz,
	ukey         uuid,
	group_id     uuid,
	parent_id    uuid,
	progress     bytea,
	opts         bytea,
	payload      bytea,
	result       bytea
);
CREATE INDEX done_state ON wake.done (state, finished_at);
CREATE INDEX done_key   ON wake.done (ukey) WHERE ukey IS NOT NULL;

CREATE TABLE wake.blob (
	id      uuid  PRIMARY KEY,
	payload bytea NOT NULL
);

CREATE TABLE wake.attempt_error (
	n       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	task    uuid        NOT NULL,
	attempt integer     NOT NULL,
	at      timestamptz NOT NULL,
	cause   text NOT NULL,
	message text NOT NULL,
	stack   text NOT NULL,
	node    text NOT NULL
);
CREATE INDEX attempt_error_task ON wake.attempt_error (task, n);

CREATE TABLE wake.alias (
	id     uuid PRIMARY KEY,
	target uuid NOT NULL
);
CREATE INDEX alias_target ON wake.alias (target);

CREATE TABLE wake.tag (
	tag text NOT NULL,
	id  uuid NOT NULL,
	PRIMARY KEY (tag, id)
);
CREATE INDEX tag_id ON wake.tag (id);

CREATE TABLE wake.node (
	boot        uuid    PRIMARY KEY,
	name        text    NOT NULL,
	host        text    NOT NULL,
	pid         bigint  NOT NULL,
	version     text    NOT NULL,
	worker      boolean NOT NULL,
	kinds       text[]  NOT NULL,
	schedules   text[]  NOT NULL,
	lease       interval    NOT NULL,
	lease_until timestamptz,
	lock_key    bigint,
	started_at  timestamptz NOT NULL,
	ended_at    timestamptz
) WITH (fillfactor = 50);

CREATE TABLE wake.schedule (
	name          text PRIMARY KEY,
	spec          text NOT NULL,
	zone          text NOT NULL,
	misfire       text NOT NULL,
	overlap       text NOT NULL,
	jitter        bigint NOT NULL,
	revision      bigint NOT NULL,
	task          bytea  NOT NULL,
	override_spec text NOT NULL DEFAULT '',
	override_zone text NOT NULL DEFAULT '',
	paused        boolean NOT NULL DEFAULT false,
	next_at       timestamptz,
	last_tick     timestamptz,
	last_task     uuid,
	version       bigint NOT NULL DEFAULT 1
);

CREATE TABLE wake.tick (
	schedule text   NOT NULL,
	tick     bigint NOT NULL,
	task     uuid   NOT NULL,
	PRIMARY KEY (schedule, tick)
);
`}

// oldestReader is the oldest version of a program, by the schema that it
// knows, that can work with today's schema.
const oldestReader = 1

// migrationLock is the advisory lock under which schemas are migrated.
const migrationLock = 0x77616b65_00000001

// migrate brings the schema to the version of this program. Where there is
// nothing to do it changes nothing, so that a role that may not create tables
// can open a store.
func (s *Store) migrate(ctx context.Context) error {
	version, err := s.schemaVersion(ctx, s.pool)
	if err != nil || version >= len(migrations) {
		return err
	}
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(migrationLock)); err != nil {
			return err
		}
		version, err := s.schemaVersion(ctx, tx) // another process may have been faster
		if err != nil || version >= len(migrations) {
			return err
		}
		if version == 0 {
			if err := s.createSchema(ctx, tx); err != nil {
				return err
			}
		}
		for _, step := range migrations[version:] {
			if _, err := tx.Exec(ctx, s.sql(step), pgx.QueryExecModeSimpleProtocol); err != nil {
				return fmt.Errorf("migrate the schema from version %d: %w", version, err)
			}
			version++
		}
		for key, value := range map[string]int{"schema": version, "oldest_reader": oldestReader} {
			if _, err := tx.Exec(ctx, s.sql(`INSERT INTO wake.meta VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value`), key, strconv.Itoa(value)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Store) createSchema(ctx context.Context, tx pgx.Tx) error {
	var exists bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)`, s.cfg.Schema).Scan(&exists); err != nil {
		return err
	}
	if !exists {
		if _, err := tx.Exec(ctx, `CREATE SCHEMA `+s.schema); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, s.sql(`CREATE TABLE IF NOT EXISTS wake.meta (key text PRIMARY KEY, value text NOT NULL)`))
	return err
}

// schemaVersion returns the version of the schema, 0 if there is none, and an
// error if this program is too old for it.
func (s *Store) schemaVersion(ctx context.Context, db interface {
	QueryRow(ctx context.Context, query string, args ...any) pgx.Row
}) (int, error) {
	var exists bool
	// Not by to_regclass, which remembers in a transaction what there was not.
	if err := db.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = 'meta')`, s.cfg.Schema).Scan(&exists); err != nil || !exists {
		return 0, err
	}
	version, oldest := 0, 0
	for key, value := range map[string]*int{"schema": &version, "oldest_reader": &oldest} {
		var text string
		err := db.QueryRow(ctx, s.sql(`SELECT value FROM wake.meta WHERE key = $1`), key).Scan(&text)
		if errors.Is(err, pgx.ErrNoRows) {
			continue
		}
		if err == nil {
			*value, err = strconv.Atoi(text)
		}
		if err != nil {
			return 0, fmt.Errorf("read %s from %s.meta: %w", key, s.cfg.Schema, err)
		}
	}
	if known := len(migrations); version > known && oldest > known {
		return 0, fmt.Errorf("the schema %q has version %d, which programs that know version %d or later can work with, and this one knows %d: run a newer one", s.cfg.Schema, version, oldest, known)
	}
	return version, nil
}
