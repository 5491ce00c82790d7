package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"

	"github.com/wake-go/wake/durable"
)

// A Store keeps tasks in a SQLite file. Its methods may be called by several
// goroutines, and several processes may have the file open.
type Store struct {
	cfg     Config
	driver  *sqlite.Driver
	nonce   string // tells its connections from all others
	conns   conns
	gate    gate
	db      *sql.DB // the user's
	reads   *sql.DB // the store's own
	writer  *writer
	slot    *slot
	file    *file
	clock   clock
	ballast ballast
	signals signals
	boots   boots
	machine string // and its start

	others atomic.Bool // other processes have the file open

	ended   context.Context
	end     context.CancelFunc
	helpers sync.WaitGroup
	closed  sync.Once
}

// Open opens a file, creates or migrates what is missing, and begins to look
// after it. A file that a newer program has made, one that is damaged, and one
// on a network file system, which cannot be relied on to lock, are errors.
func Open(ctx context.Context, cfg Config) (_ *Store, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("durable: open %q: %w", cfg.Path, explained(err))
		}
	}()
	if err := createPrivate(cfg.Path); err != nil {
		return nil, err
	}
	if cfg.Path, err = realPath(cfg.Path); err != nil {
		return nil, err
	}
	if err := refuseNetwork(cfg.Path); err != nil {
		return nil, err
	}
	// Locks that belong to the open file, where the system has them, do not
	// vanish when somebody else in the process opens the file and closes it.
	_, _ = sqlite.OFDLocking(true)
	s := &Store{cfg: cfg, driver: &sqlite.Driver{}, nonce: durable.NewID().String(), clock: newClock(), machine: machine()}
	if s.file, err = fileAt(cfg.Path); err != nil {
		return nil, err
	}
	s.ended, s.end = context.WithCancel(context.Background())
	if err := s.driver.RegisterScalarFunction("wake_connection", 0, s.connectionFunc); err != nil {
		return nil, err
	}
	dsn, err := cfg.dsn(readerCache)
	if err != nil {
		return nil, err
	}
	writerDSN, err := cfg.dsn(writerCache)
	if err != nil {
		return nil, err
	}
	s.db = sql.OpenDB(&connector{store: s, dsn: dsn})
	s.db.SetMaxOpenConns(64)
	s.db.SetMaxIdleConns(8)
	s.reads = sql.OpenDB(&connector{store: s, dsn: dsn})
	s.reads.SetMaxOpenConns(5)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.slot, err = takeSlot(cfg.Path); err != nil {
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	if s.writer, err = newWriter(s, &connector{store: s, dsn: writerDSN, direct: true}); err != nil {
		return nil, err
	}
	s.ballast.begin(cfg.Path, cfg.Ballast)
	if err := s.endLeases(ctx); err != nil {
		return nil, err
	}
	s.others.Store(s.slot.others())
	s.helpers.Go(s.watchOthers)
	s.helpers.Go(s.lookAfterWAL)
	s.warnOfOtherLibraries()
	return s, nil
}

// prepare brings journal mode and schema into the state the store needs.
func (s *Store) prepare(ctx context.Context) error {
	var mode string
	if err := s.db.QueryRowContext(ctx, `PRAGMA journal_mode = WAL`).Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("its journal mode is %q and cannot be changed to wal; is the file in use in another mode, or its directory read-only?", mode)
	}
	return migrate(ctx, s.db, filepath.Base(s.cfg.Path))
}

// Traits describes the store.
func (s *Store) Traits() durable.Traits {
	return durable.Traits{Name: "sqlite", Committers: 1, MaxBatch: 1000, SharedTx: true}
}

// DB returns a database handle on the file for the application's own tables,
// on connections whose writes take turns with the store's. Transactions take
// the write lock when they begin, unless they are read-only: keep them short.
// The store closes it.
func (s *Store) DB() *sql.DB { return s.db }

// enter waits for the right to write; leave gives it back.
func (s *Store) enter(ctx context.Context, engine bool) error {
	if err := s.gate.lock(ctx, engine); err != nil {
		return err
	}
	if s.ended.Err() != nil {
		s.gate.unlock()
		return durable.ErrClosed
	}
	if s.others.Load() {
		if err := s.slot.lockGate(ctx); err != nil {
			s.gate.unlock()
			return err
		}
	}
	return nil
}

func (s *Store) leave() {
	s.slot.unlockGate()
	s.gate.unlock()
}

// Ping reports whether the store can be written to.
func (s *Store) Ping(ctx context.Context) error {
	return s.write(ctx, func(*writer) error { return nil })
}

// Now returns the store's time.
func (s *Store) Now(context.Context) (time.Time, error) { return s.clock.now(), nil }

// Advance moves the store's time, for tests.
func (s *Store) Advance(d time.Duration) {
	s.clock.advance(d)
	s.signals.send(durable.SignalTasks | durable.SignalSchedules)
}

// Close ends what looks after the file, gives up the process's place and
// closes all connections, the user's included.
func (s *Store) Close() error {
	var err error
	s.closed.Do(func() {
		s.end()
		s.helpers.Wait()
		if s.writer != nil {
			err = errors.Join(err, s.closeWriter())
		}
		err = errors.Join(err, s.reads.Close(), s.db.Close())
		s.ballast.close()
		s.slot.release()
		if err != nil {
			err = fmt.Errorf("durable: close %q: %w", s.cfg.Path, err)
		}
	})
	return err
}

// closeWriter closes the writer when whoever uses it has left.
func (s *Store) closeWriter() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.BusyTimeout)
	defer cancel()
	if err := s.gate.lock(ctx, true); err != nil {
		return err
	}
	defer s.gate.unlock()
	return s.writer.checkpointAndClose()
}

// warnOfOtherLibraries warns of a program that has a second SQLite library:
// their locks do not see each other in one process, and rows get lost when both
// write to this file.
func (s *Store) warnOfOtherLibraries() {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return
	}
	for _, dep := range info.Deps {
		switch dep.Path {
		case "github.com/mattn/go-sqlite3", "github.com/ncruces/go-sqlite3", "zombiezen.com/go/sqlite", "crawshaw.io/sqlite":
			slog.Warn("durable: the program has a second SQLite library: never open the task store's file with it, rows would be lost",
				"library", dep.Path, "file", s.cfg.Path, "instead", "the *sql.DB that the store returns")
		}
	}
}

// explained turns an error of the library into one that says what to do, and that
// matches what it means for the caller.
func explained(err error) error {
	var lib *sqlite.Error
	if err == nil || !errors.As(err, &lib) {
		return err
	}
	code := lib.Code()
	switch code & 0xff {
	case codeBusy, codeLocked, codeProtocol:
		return fmt.Errorf("%w: another process holds the file's write lock: %w", durable.ErrUnavailable, err)
	case codeFull:
		return fmt.Errorf("%w: %w: %w", durable.ErrUnavailable, durable.ErrFull, err)
	case codeIOErr, codeNoMem:
		return fmt.Errorf("%w: %w", durable.ErrUnavailable, err)
	case codeReadOnly:
		return fmt.Errorf("%w: the file or its directory cannot be written to: %w", durable.ErrUnavailable, err)
	case codeCantOpen:
		return fmt.Errorf("%w: the file cannot be opened: %w", durable.ErrUnavailable, err)
	case codeCorrupt, codeNotADB:
		return fmt.Errorf("%w: the file is damaged or no SQLite database: restore a copy, or recover it with the sqlite3 program's .recover: %w", durable.ErrUnavailable, err)
	}
	return err
}

// Primary result codes of SQLite.
const (
	codeBusy     = 5
	codeLocked   = 6
	codeNoMem    = 7
	codeReadOnly = 8
	codeIOErr    = 10
	codeCorrupt  = 11
	codeFull     = 13
	codeCantOpen = 14
	codeProtocol = 15 // of locking, when many want to at once
	codeNotADB   = 26
)

// isFull reports whether the disk, or the quota, was full.
func isFull(err error) bool {
	return errors.Is(err, durable.ErrFull) || err != nil && strings.Contains(err.Error(), "no space left")
}
