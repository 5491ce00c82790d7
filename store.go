package wake

import (
	"context"
	"fmt"
	"strings"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/sqlite"
)

// openURL opens the store that a queue's URL names.
func openURL(ctx context.Context, url string) (durable.Store, error) {
	scheme, _, _ := strings.Cut(url, ":")
	switch scheme {
	case "sqlite":
		cfg, err := sqlite.ParseURL(url)
		if err != nil {
			return nil, err
		}
		store, err := sqlite.Open(ctx, cfg)
		if err != nil {
			return nil, err // not a store that is nil
		}
		return store, nil
	case "postgres", "postgresql":
		return nil, fmt.Errorf("wake: the queue %q: PostgreSQL is not supported in this version; use sqlite:file.db, or wake.OpenStore with a store of your own", scheme+"://…")
	}
	return nil, fmt.Errorf("wake: the queue %q is no URL of a store; use sqlite:file.db", redactURL(url))
}

// redactURL leaves out what may be a password.
func redactURL(url string) string {
	if scheme, rest, ok := strings.Cut(url, "://"); ok {
		if _, host, ok := strings.Cut(rest, "@"); ok {
			return scheme + "://…@" + host
		}
	}
	return url
}
