package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/wake-go/wake/durable"
)

const (
	walPoll    = 100 * time.Millisecond
	walCopied  = 4 << 20  // above this size, what is in the log is copied to the file beside the writers
	walBegun   = 32 << 20 // above this, writers wait while the log begins anew
	walOneStep = time.Second
	walPage    = 4096 + 24 // bytes of a page in the log
	walRest    = 256       // pages that writers may wait for
)

// errReadTooLong is what a read gets that was ended for the log's sake.
type errReadTooLong struct{ most time.Duration }

func (e *errReadTooLong) Error() string {
	return fmt.Sprintf("durable: sqlite: this read was open for longer than %v while the write-ahead log grew beyond its bound, which it cannot shrink below while it is read; read less at a time (Config.MaxRead, Config.MaxWAL)", e.most)
}

// lookAfterWAL copies the write-ahead log into the file in the background, and
// keeps its size bounded: a writer that never pauses, or a read that never
// ends, would let it grow for ever.
func (s *Store) lookAfterWAL() {
	db := sql.OpenDB(&connector{store: s, dsn: s.writer.dsn}) // of its own: a checkpoint takes a while
	defer db.Close()
	db.SetMaxOpenConns(1)
	tick := time.NewTicker(walPoll)
	defer tick.Stop()
	warned := false
	for {
		select {
		case <-s.ended.Done():
			return
		case <-tick.C:
		}
		if s.WALSize() < walCopied {
			continue
		}
		ctx, cancel := context.WithTimeout(s.ended, walOneStep)
		size := s.checkpoint(ctx, db)
		cancel()
		if size <= s.cfg.MaxWAL {
			warned = false
			continue
		}
		n := s.conns.endReads(time.Now().Add(-s.cfg.MaxRead), &errReadTooLong{s.cfg.MaxRead})
		if n > 0 || !warned {
			warned = true
			slog.Warn("durable: the write-ahead log is larger than its bound", "file", s.cfg.Path, "bytes", size, "most", s.cfg.MaxWAL, "reads_ended", n)
		}
	}
}

// checkpoint copies the log, and lets it begin anew if it has become long. It
// returns how much of it is in use, in bytes.
func (s *Store) checkpoint(ctx context.Context, db *sql.DB) int64 {
	var busy, pages, copied int64
	// Each round copies what was written during the one before, so that the
	// last one, for which writers wait, has little to do.
	for round := 0; round < 4 && (round == 0 || pages*walPage >= walBegun && pages-copied > walRest); round++ {
		if err := db.QueryRowContext(ctx, `PRAGMA wal_checkpoint(PASSIVE)`).Scan(&busy, &pages, &copied); err != nil {
			return 0
		}
	}
	size := pages * walPage
	if size < walBegun || pages-copied > pages/2 {
		return size // a read holds it
	}
	if err := s.enter(ctx, true); err != nil {
		return size
	}
	defer s.leave()
	// Readers of the old log are not waited for: then it begins anew another
	// time.
	if s.writer.restartLog(s.cfg.BusyTimeout) {
		return 0
	}
	return size
}

// WALSize returns the size of the write-ahead log's file, in bytes.
func (s *Store) WALSize() int64 {
	info, err := os.Stat(s.cfg.Path + "-wal")
	if err != nil {
		return 0
	}
	return info.Size()
}

// Is makes an ended read match what may be tried again.
func (e *errReadTooLong) Is(target error) bool { return target == durable.ErrUnavailable }
