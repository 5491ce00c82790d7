package users

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
)

// parseURL returns the file that a database URL names.
func parseURL(raw string) (string, error) {
	scheme, path, found := strings.Cut(raw, ":")
	if !found || scheme != "sqlite" {
		return "", fmt.Errorf("users database %q: the scheme must be sqlite: write sqlite:signup.db or sqlite:/var/lib/signup.db", raw)
	}
	// sqlite:///abs/path is the same file as sqlite:/abs/path.
	if rest, ok := strings.CutPrefix(path, "//"); ok {
		if !strings.HasPrefix(rest, "/") {
			return "", fmt.Errorf("users database %q: a file has no host: write sqlite:%s, or sqlite:/%s for an absolute path", raw, rest, rest)
		}
		path = rest
	}
	if path == "" || path == ":memory:" || strings.ContainsAny(path, "?#") {
		return "", fmt.Errorf("users database %q: the URL must name a file and nothing else: write sqlite:signup.db", raw)
	}
	return path, nil
}

// dataSource adds to path what every connection needs. The busy time-out comes first, because switching to WAL can
// already meet another process's lock.
func dataSource(path string, readOnly bool) string {
	query := url.Values{
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"},
		// A transaction that starts by reading and then wants to write could find that someone else wrote meanwhile,
		// which no amount of waiting cures. Taking the write lock at the start can only wait.
		"_txlock": {"immediate"},
	}
	if readOnly {
		query["_pragma"] = append(query["_pragma"], "query_only(1)")
	}
	escaped := (&url.URL{Path: path}).EscapedPath()
	return "file:" + escaped + "?" + query.Encode()
}

// createPrivate creates the file for its owner alone, if it does not exist yet. SQLite gives its journal files the mode
// of the database, so they are private too. The mode of a file that exists is its operator's decision.
func createPrivate(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return file.Close()
}
