package sqlite

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// A Config says where a store's file is and how it is treated.
type Config struct {
	// Path is the database's file. It is created, for its owner alone to read
	// and write, if it does not exist. Others appear beside it: -wal and -shm
	// are SQLite's; -wake-1 and so on say which processes live, -wake-lock
	// queues them, -wake-ballast is room to finish work in on a full disk.
	Path string

	// MaxWAL is the size in bytes of the write-ahead log above which reads that
	// have been open for longer than MaxRead are ended, with an error that says
	// so: a log that is being read cannot begin anew. Defaults to 256 MiB.
	MaxWAL int64

	// MaxRead is how long a read may be open while the log is larger than
	// MaxWAL. Defaults to 5 seconds.
	MaxRead time.Duration

	// BusyTimeout is how long to wait for a lock that another process holds.
	// Defaults to 5 seconds.
	BusyTimeout time.Duration

	// FuncBudget is how long a function given to Queue.InTx may run in a
	// transaction that it shares with others. One that takes longer is rolled
	// back and run again in a transaction of its own. So are those that are left
	// when all of them have taken four times as long. Defaults to 100
	// milliseconds.
	FuncBudget time.Duration

	// MaxFunc is how long a function may run in a transaction of its own,
	// during which nobody else writes. Defaults to 30 seconds.
	MaxFunc time.Duration

	// Ballast is the size in bytes of a file that is given up when the disk is
	// full, so that what runs can be finished. Defaults to 4 MiB; negative:
	// none.
	Ballast int64

	// Relaxed makes a commit return before the disk has it: a power cut can
	// lose what was acknowledged. It is for tests.
	Relaxed bool
}

func (c Config) withDefaults() Config {
	if c.MaxWAL == 0 {
		c.MaxWAL = 256 << 20
	}
	if c.MaxRead == 0 {
		c.MaxRead = 5 * time.Second
	}
	if c.BusyTimeout == 0 {
		c.BusyTimeout = 5 * time.Second
	}
	if c.FuncBudget == 0 {
		c.FuncBudget = 100 * time.Millisecond
	}
	if c.MaxFunc == 0 {
		c.MaxFunc = 30 * time.Second
	}
	if c.Ballast == 0 {
		c.Ballast = 4 << 20
	}
	return c
}

func (c *Config) validate() error {
	if c.Path == "" {
		return fmt.Errorf("durable: sqlite: Config.Path is empty; it must name the database's file")
	}
	if strings.HasPrefix(c.Path, ":memory:") || strings.HasPrefix(c.Path, "file:") {
		return fmt.Errorf("durable: sqlite: Config.Path is %q; it must be a path, as in \"signup.db\": other processes have to find the same file", c.Path)
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"MaxRead", c.MaxRead}, {"BusyTimeout", c.BusyTimeout}, {"FuncBudget", c.FuncBudget}, {"MaxFunc", c.MaxFunc}} {
		if d.value < 0 {
			return fmt.Errorf("durable: sqlite: Config.%s is %v; it must be positive, or 0 for its default", d.field, d.value)
		}
	}
	if c.MaxWAL < 0 {
		return fmt.Errorf("durable: sqlite: Config.MaxWAL is %d; it must be positive, or 0 for its default", c.MaxWAL)
	}
	return nil
}

// ParseURL makes a Config of a URL such as sqlite:signup.db or
// sqlite:/var/lib/signup/signup.db.
func ParseURL(raw string) (Config, error) {
	rest, ok := strings.CutPrefix(raw, "sqlite:")
	if !ok {
		return Config{}, fmt.Errorf("durable: sqlite: %q is no URL of a SQLite file; write sqlite:name.db", raw)
	}
	rest = strings.TrimPrefix(rest, "//")
	path, query, _ := strings.Cut(rest, "?")
	if query != "" {
		return Config{}, fmt.Errorf("durable: sqlite: the URL %q has parameters; a SQLite URL has none: set them in sqlite.Config", raw)
	}
	path, err := url.PathUnescape(path)
	if err != nil {
		return Config{}, fmt.Errorf("durable: sqlite: %q: %w", raw, err)
	}
	c := Config{Path: path}
	return c, c.validate()
}

// Memory for pages, in KiB: of the writer, and of each other connection.
const (
	writerCache = 32 << 10
	readerCache = 2 << 10
)

// fileURL makes a URL of an absolute path with slashes. One that begins with a
// drive's letter needs another slash in front, or that would be a host.
func fileURL(path string, query url.Values) string {
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}
	return u.String()
}

// dsn is the name under which the library opens the file.
func (c *Config) dsn(cache int) (string, error) {
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return "", err
	}
	synchronous := "FULL"
	if c.Relaxed {
		synchronous = "OFF"
	}
	q := url.Values{
		"_txlock":       {"immediate"},
		"_busy_timeout": {fmt.Sprint(c.BusyTimeout.Milliseconds())},
		"_synchronous":  {synchronous},
		"_foreign_keys": {"1"},
		"_error_rc":     {"1"},
		"_pragma":       {"temp_store(MEMORY)", "wal_autocheckpoint(0)", "journal_size_limit(67108864)", fmt.Sprintf("cache_size(-%d)", cache)},
	}
	return fileURL(filepath.ToSlash(path), q), nil
}
