// Package users keeps the people who signed up, and their pictures, in an SQLite database that somebody else opens and
// closes.
//
// [AddTo] writes a new user as a part of somebody else's transaction, so that the user and the work that follows from the
// registration are stored together or not at all. The marks of that work are parts of transactions too: those that many
// share cost a share of one.
package users

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"time"
)

//go:embed schema.sql
var schema string

var (
	// ErrTaken says that somebody has registered the username. Upper and lower case are the same name, as they are in
	// a mail address.
	ErrTaken = errors.New("username is taken")
	// ErrUnknown says that nobody has registered the username.
	ErrUnknown = errors.New("username is not registered")
	// ErrNoPicture says that the picture asked for does not exist: none was uploaded, or it has been replaced by its
	// thumbnail, or the thumbnail has not been made yet.
	ErrNoPicture = errors.New("no such picture")
)

// Store is the table of users. Its methods may be called from any goroutine.
type Store struct {
	db *sql.DB
}

// New returns the store in a database, and creates the tables that are missing.
func New(ctx context.Context, db *sql.DB) (*Store, error) {
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, fmt.Errorf("users database: create the tables: %w", err)
	}
	return &Store{db}, nil
}

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	var one int
	if err := s.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM users)`).Scan(&one); err != nil {
		return fmt.Errorf("users database: %w", err)
	}
	return nil
}

// Execer is what writing needs of a transaction: a *sql.Tx has it, and a *durable.SQLTx.
type Execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// AddTo stores a new user, with the uploaded picture if there is one, or returns [ErrTaken]. It is a part of the
// transaction tx, which the caller commits, or rolls back after an error.
func AddTo(ctx context.Context, tx Execer, username string, picture []byte) error {
	// DO NOTHING rather than a failing INSERT: a duplicate is then a count, the same for every driver.
	result, err := tx.ExecContext(ctx,
		`INSERT INTO users (username, registered_at) VALUES (?, ?) ON CONFLICT DO NOTHING`,
		username, time.Now().UnixMicro())
	if err != nil {
		return fmt.Errorf("add user %q: %w", username, err)
	}
	added, err := result.RowsAffected()
	if err != nil {
		return fmt.Errorf("add user %q: %w", username, err)
	}
	if added == 0 {
		return fmt.Errorf("add user %q: %w: choose another", username, ErrTaken)
	}
	if len(picture) == 0 {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO pictures (username, upload) VALUES (?, ?)`, username, picture); err != nil {
		return fmt.Errorf("add the picture of user %q: %w", username, err)
	}
	return nil
}

// MarkLogged notes, as a part of the transaction tx, that the registration is in the log.
func MarkLogged(ctx context.Context, tx Execer, username string) error {
	return mark(ctx, tx, username, `UPDATE users SET logged = TRUE WHERE username = ?`)
}

// MarkEmailed notes, as a part of the transaction tx, that the welcome mail is sent.
func MarkEmailed(ctx context.Context, tx Execer, username string) error {
	return mark(ctx, tx, username, `UPDATE users SET emailed = TRUE WHERE username = ?`)
}

// MarkCRM notes, as a part of the transaction tx, that the CRM knows the user.
func MarkCRM(ctx context.Context, tx Execer, username string) error {
	return mark(ctx, tx, username, `UPDATE users SET crm = TRUE WHERE username = ?`)
}

func mark(ctx context.Context, tx Execer, username, statement string) error {
	result, err := tx.ExecContext(ctx, statement, username)
	return oneRow(result, err, "mark user", username, ErrUnknown)
}

// oneRow checks a statement that must have changed the row of username.
func oneRow(result sql.Result, err error, action, username string, missing error) error {
	if err != nil {
		return fmt.Errorf("%s %q: %w", action, username, err)
	}
	changed, err := result.RowsAffected()
	if err != nil {
		return fmt.Errorf("%s %q: %w", action, username, err)
	}
	if changed == 0 {
		return fmt.Errorf("%s %q: %w", action, username, missing)
	}
	return nil
}
