package sqlite

import (
	"net/url"
	"testing"
)

// A drive's letter is no host, and nothing in a path is a part of the query.
func TestFileURL(t *testing.T) {
	for path, want := range map[string]string{
		"/var/lib/a b?#%.db": "file:///var/lib/a%20b%3F%23%25.db?x=1",
		"C:/data/a.db":       "file:///C:/data/a.db?x=1",
	} {
		if got := fileURL(path, url.Values{"x": {"1"}}); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}
