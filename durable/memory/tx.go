package memory

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/wake-go/wake/durable"
)

// InTx implements [durable.Store]. The function runs in a goroutine of its own,
// so that one which panics or calls runtime.Goexit is one that failed. Other
// transactions do not wait for it. The context is looked at before the
// function runs, and before its tasks are inserted.
func (s *Store) InTx(ctx context.Context, f *durable.Func) error {
	tx := durable.NewSQLTx(noSQL{}, f)
	err := s.Ping(ctx)
	if err == nil {
		err = call(f, tx)
	}
	tx.End(fmt.Errorf("durable: %w", durable.ErrTxDone))
	if err == nil {
		err = f.Err // of a task that could not be added
	}
	if err == nil {
		err = s.insertAll(ctx, f)
	}
	f.Err = err
	return err
}

// call runs the function, whichever way it ends.
func call(f *durable.Func, tx *durable.SQLTx) error {
	ended := make(chan error, 1)
	go func() {
		err := errors.New("durable: the function in the transaction called runtime.Goexit")
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("durable: the function in the transaction panicked: %v\n%s", v, debug.Stack())
			}
			ended <- err
		}()
		err = f.Run(tx)
	}()
	return <-ended
}

// insertAll inserts a function's tasks, or none of them.
func (s *Store) insertAll(ctx context.Context, f *durable.Func) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	if free := s.cfg.MaxTasks - len(s.tasks); len(f.Inserts) > free {
		return fmt.Errorf("durable: %d tasks for a memory store that has room for %d: %w: %w", len(f.Inserts), free, durable.ErrFull, durable.ErrUnavailable)
	}
	seen := map[durable.ID]bool{}
	for i := range f.Inserts {
		if err := s.checkInsert(&f.Inserts[i]); err != nil {
			return err
		}
		if id := f.Inserts[i].ID; seen[id] {
			return fmt.Errorf("durable: two tasks of a transaction have the id %v; make another with NewID", id)
		}
		seen[f.Inserts[i].ID] = true
	}
	for i := range f.Inserts {
		f.Inserted = append(f.Inserted, s.insert(&f.Inserts[i], false))
	}
	return nil
}

// InsertTx implements [durable.Store]: no transaction is one on a memory store.
func (s *Store) InsertTx(context.Context, durable.Tx, []durable.Insert) ([]durable.Inserted, error) {
	return nil, errForeign()
}

// FinishTx implements [durable.Store]: no transaction is one on a memory store.
func (s *Store) FinishTx(context.Context, durable.Tx, durable.Boot, durable.Finish) (bool, error) {
	return false, errForeign()
}

func errForeign() error {
	return fmt.Errorf("durable: the memory store has no SQL: %w", durable.ErrForeignTx)
}

// noSQL refuses the statements of a function.
type noSQL struct{}

func errNoSQL() error {
	return errors.New("durable: the memory store has no SQL; in its transactions tasks can be added, and nothing else")
}

func (noSQL) ExecContext(context.Context, string, ...any) (sql.Result, error) {
	return nil, errNoSQL()
}

func (noSQL) QueryContext(context.Context, string, ...any) (*sql.Rows, error) {
	return nil, errNoSQL()
}

func (noSQL) PrepareContext(context.Context, string) (*sql.Stmt, error) { return nil, errNoSQL() }

// QueryRowContext makes a Row with the error by asking a database that cannot
// be connected to: there is no other way.
func (noSQL) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	db := sql.OpenDB(refuser{})
	defer db.Close()
	return db.QueryRowContext(ctx, query, args...)
}

type refuser struct{}

func (refuser) Connect(context.Context) (driver.Conn, error) { return nil, errNoSQL() }
func (refuser) Driver() driver.Driver                        { return refusingDriver{} }

type refusingDriver struct{}

func (refusingDriver) Open(string) (driver.Conn, error) { return nil, errNoSQL() }
