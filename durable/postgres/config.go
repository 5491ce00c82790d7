package postgres

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// A Config says where a store's database is and how it is used.
type Config struct {
	// URL names the database, as in postgres://user:password@host:5432/name,
	// or as key=value pairs. What it leaves out is taken from the usual PG…
	// variables of the environment. Errors show it without its password.
	URL string

	// Schema is where the store's tables are; it is created if it does not
	// exist. Queues in different schemas know nothing of each other. Up to 48
	// of the letters a to z, digits and underscores. Defaults to "wake".
	Schema string

	// MaxConns is how many connections the store opens at most, one more not
	// counted, on which it listens. Four are kept for the store's own work, the
	// rest is also for [Store.DB] and for functions given to Queue.InTx. At
	// least 6; defaults to 16.
	MaxConns int

	// LockTimeout is how long the store waits for a row or a key that a user's
	// open transaction holds, before it answers that it is not available.
	// Defaults to 1 second.
	LockTimeout time.Duration

	// DeathDelay is how long a process's session must have been gone before its
	// tasks are taken back, while its lease has not ended: it may only have lost
	// its connection. Negative: only leases count. Defaults to 3 seconds.
	DeathDelay time.Duration
}

// reserved is how many connections are kept for the store's own work.
const reserved = 4

func (c Config) withDefaults() Config {
	if c.Schema == "" {
		c.Schema = "wake"
	}
	if c.MaxConns == 0 {
		c.MaxConns = 16
	}
	if c.LockTimeout == 0 {
		c.LockTimeout = time.Second
	}
	if c.DeathDelay == 0 {
		c.DeathDelay = 3 * time.Second
	}
	return c
}

var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,47}$`)

func (c *Config) validate() error {
	switch {
	case c.URL == "":
		return errors.New("durable: postgres: Config.URL is empty; it must name the database, as in postgres://user@host/name")
	case !schemaName.MatchString(c.Schema) || strings.HasPrefix(c.Schema, "pg_"):
		return fmt.Errorf("durable: postgres: Config.Schema is %q; it must be at most 48 of a to z, 0 to 9 and _, and not begin with a digit or pg_", c.Schema)
	case c.MaxConns < reserved+2 || c.MaxConns > 10_000:
		return fmt.Errorf("durable: postgres: Config.MaxConns is %d; it must be between %d and 10,000, or 0 for its default", c.MaxConns, reserved+2)
	case c.LockTimeout < time.Millisecond:
		return fmt.Errorf("durable: postgres: Config.LockTimeout is %v; it must be a millisecond or more, or 0 for its default", c.LockTimeout)
	}
	return nil
}

// pool is the configuration of the connections.
func (c *Config) pool() (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		// The library's error may quote a part of the URL.
		return nil, fmt.Errorf("durable: postgres: Config.URL is %q, which cannot be read; write postgres://user:password@host:5432/name, with %%-escapes in the password", masked(c.URL))
	}
	cfg.MaxConns = int32(c.MaxConns)
	cfg.MinConns = 0
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = "wake"
	}
	return cfg, nil
}

// ParseURL makes a Config of a URL such as postgres://user@host/name. Of its
// parameters schema and max_conns are the store's, the others the driver's.
func ParseURL(raw string) (Config, error) {
	if !strings.HasPrefix(raw, "postgres://") && !strings.HasPrefix(raw, "postgresql://") {
		return Config{}, fmt.Errorf("durable: postgres: %q is no URL of a PostgreSQL database; write postgres://user@host/name", masked(raw))
	}
	c := Config{URL: raw}
	if u, err := url.Parse(raw); err == nil {
		q := u.Query()
		c.Schema = q.Get("schema")
		if n := q.Get("max_conns"); n != "" {
			if _, err := fmt.Sscanf(n, "%d", &c.MaxConns); err != nil {
				return Config{}, fmt.Errorf("durable: postgres: max_conns is %q in the URL; it must be a number", n)
			}
		}
		if q.Has("schema") || q.Has("max_conns") {
			q.Del("schema")
			q.Del("max_conns")
			u.RawQuery = q.Encode()
			c.URL = u.String()
		}
	}
	full := c.withDefaults()
	if err := full.validate(); err != nil {
		return Config{}, err
	}
	_, err := full.pool()
	return c, err
}

var (
	maskValue = regexp.MustCompile(`(?i)((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'?|[^\s&]*)`)
)

// masked is a URL, or what was meant to be one, without its password. What
// follows the first colon of the part before the last @ is taken for one.
func masked(raw string) string {
	if scheme, rest, ok := strings.Cut(raw, "://"); ok {
		if at := strings.LastIndexByte(rest, '@'); at >= 0 {
			if user, _, ok := strings.Cut(rest[:at], ":"); ok {
				raw = scheme + "://" + user + ":xxxxx" + rest[at:]
			}
		}
	}
	return maskValue.ReplaceAllString(raw, "${1}xxxxx")
}
