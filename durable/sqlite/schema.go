package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
)

// migrations bring a file from each version of the schema to the next. What is
// here has been released: it is never changed, only added to. docs/schema.md
// explains tables and columns.
var migrations = [...]string{`
CREATE TABLE wake_lane (
	id    INTEGER PRIMARY KEY,
	queue TEXT NOT NULL,
	kind  TEXT NOT NULL,
	UNIQUE (queue, kind)
) STRICT;

CREATE TABLE wake_queue (
	name   TEXT PRIMARY KEY,
	paused INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE wake_task (
	seq          INTEGER PRIMARY KEY AUTOINCREMENT,
	id           BLOB    NOT NULL UNIQUE,
	lane         INTEGER NOT NULL,
	state        INTEGER NOT NULL,
	priority     INTEGER NOT NULL,
	run_at       INTEGER NOT NULL,
	boot         BLOB,
	fence        INTEGER NOT NULL DEFAULT 0,
	attempt      INTEGER NOT NULL DEFAULT 0,
	crashes      INTEGER NOT NULL DEFAULT 0,
	max_attempts INTEGER NOT NULL,
	created_at   INTEGER NOT NULL,
	started_at   INTEGER,
	cancel_at    INTEGER,
	ukey         BLOB,
	limit_key    TEXT,
	group_id     BLOB,
	parent_id    BLOB,
	extras       INTEGER NOT NULL DEFAULT 0,
	progress     BLOB,
	opts         BLOB,
	payload      BLOB
) STRICT;
CREATE INDEX wake_task_ready     ON wake_task (lane, priority DESC, seq) WHERE state = 1;
CREATE INDEX wake_task_running   ON wake_task (boot)                     WHERE state = 2;
CREATE INDEX wake_task_scheduled ON wake_task (run_at)                   WHERE state = 3;
CREATE INDEX wake_task_cancelled ON wake_task (boot)                     WHERE cancel_at IS NOT NULL;
CREATE UNIQUE INDEX wake_task_key ON wake_task (ukey) WHERE ukey IS NOT NULL;

CREATE TABLE wake_done (
	seq          INTEGER PRIMARY KEY,
	id           BLOB    NOT NULL UNIQUE,
	lane         INTEGER NOT NULL,
	state        INTEGER NOT NULL,
	priority     INTEGER NOT NULL,
	run_at       INTEGER NOT NULL,
	boot         BLOB,
	fence        INTEGER NOT NULL,
	attempt      INTEGER NOT NULL,
	crashes      INTEGER NOT NULL,
	max_attempts INTEGER NOT NULL,
	created_at   INTEGER NOT NULL,
	started_at   INTEGER,
	cancel_at    INTEGER,
	finished_at  INTEGER NOT NULL,
	ukey         BLOB,
	group_id     BLOB,
	parent_id    BLOB,
	extras       INTEGER NOT NULL,
	progress     BLOB,
	opts         BLOB,
	payload      BLOB,
	result       BLOB
) STRICT;
CREATE INDEX wake_done_state ON wake_done (state, finished_at);
CREATE INDEX wake_done_key   ON wake_done (ukey) WHERE ukey IS NOT NULL;

CREATE TABLE wake_blob (
	seq     INTEGER PRIMARY KEY,
	payload BLOB NOT NULL
) STRICT;

CREATE TABLE wake_attempt_error (
	n       INTEGER PRIMARY KEY AUTOINCREMENT,
	seq     INTEGER NOT NULL,
	attempt INTEGER NOT NULL,
	at      INTEGER NOT NULL,
	cause   TEXT NOT NULL,
	message TEXT NOT NULL,
	stack   TEXT,
	node    TEXT
) STRICT;
CREATE INDEX wake_attempt_error_task ON wake_attempt_error (seq, n);

CREATE TABLE wake_alias (
	id     BLOB PRIMARY KEY,
	target BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX wake_alias_target ON wake_alias (target);

CREATE TABLE wake_tag (
	tag TEXT NOT NULL,
	id  BLOB NOT NULL,
	PRIMARY KEY (tag, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX wake_tag_id ON wake_tag (id);

CREATE TABLE wake_node (
	boot        BLOB PRIMARY KEY,
	name        TEXT NOT NULL,
	slot        INTEGER NOT NULL,
	machine     TEXT NOT NULL,
	host        TEXT NOT NULL,
	pid         INTEGER NOT NULL,
	version     TEXT NOT NULL,
	worker      INTEGER NOT NULL,
	kinds       TEXT NOT NULL,
	schedules   TEXT NOT NULL,
	lease       INTEGER NOT NULL,
	lease_until INTEGER,
	started_at  INTEGER NOT NULL,
	ended_at    INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE wake_schedule (
	name          TEXT PRIMARY KEY,
	spec          TEXT NOT NULL,
	zone          TEXT NOT NULL,
	misfire       TEXT NOT NULL,
	overlap       TEXT NOT NULL,
	jitter        INTEGER NOT NULL,
	revision      INTEGER NOT NULL,
	task          BLOB NOT NULL,
	override_spec TEXT NOT NULL DEFAULT '',
	override_zone TEXT NOT NULL DEFAULT '',
	paused        INTEGER NOT NULL DEFAULT 0,
	next_at       INTEGER,
	last_tick     INTEGER,
	last_task     BLOB,
	version       INTEGER NOT NULL DEFAULT 1
) STRICT, WITHOUT ROWID;

CREATE TABLE wake_tick (
	schedule TEXT NOT NULL,
	tick     INTEGER NOT NULL,
	task     BLOB NOT NULL,
	PRIMARY KEY (schedule, tick)
) STRICT, WITHOUT ROWID;

INSERT INTO wake_meta (key, value) VALUES ('progress', '0');
`}

// oldestReader is the oldest version of a program, by the schema that it
// knows, that can work with a file of today's schema.
const oldestReader = 1

// migrate brings the file to the schema of this program.
func migrate(ctx context.Context, db *sql.DB, path string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after the commit
	if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS wake_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID`); err != nil {
		return err
	}
	version, oldest := 0, 0
	for key, value := range map[string]*int{"schema": &version, "oldest_reader": &oldest} {
		var text string
		err := tx.QueryRowContext(ctx, `SELECT value FROM wake_meta WHERE key = ?`, key).Scan(&text)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err == nil {
			*value, err = strconv.Atoi(text)
		}
		if err != nil {
			return fmt.Errorf("read %s from wake_meta: %w", key, err)
		}
	}
	if known := len(migrations); version > known && oldest > known {
		return fmt.Errorf("%s has version %d of the schema, which programs that know version %d or later can work with, and this one knows %d: run a newer one", path, version, oldest, known)
	}
	if version >= len(migrations) {
		return nil
	}
	for _, step := range migrations[version:] {
		if _, err := tx.ExecContext(ctx, step); err != nil {
			return fmt.Errorf("migrate the schema from version %d: %w", version, err)
		}
		version++
	}
	for key, value := range map[string]int{"schema": version, "oldest_reader": oldestReader} {
		if _, err := tx.ExecContext(ctx, `INSERT INTO wake_meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value`, key, strconv.Itoa(value)); err != nil {
			return err
		}
	}
	return tx.Commit()
}
