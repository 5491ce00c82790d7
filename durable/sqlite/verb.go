package sqlite

import "strings"

// A verb is what the first word of a statement says of it. A wrong guess costs
// a turn at the gate, or SQLite's own way of waiting; nothing is lost.
type verb int

const (
	reads verb = iota
	writes
	begins // or ends, a transaction by hand
	locks  // begins one that writes
)

// controls reports whether a transaction by hand may have begun or ended.
func (v verb) controls() bool { return v >= begins }

// ofQuery is the verb of what is run for its rows.
func (v verb) ofQuery() verb {
	if v.controls() {
		return reads
	}
	return v
}

func verbOf(query string) verb {
	query = skipBlank(query)
	end := strings.IndexFunc(query, func(c rune) bool { return c < 'A' || c > 'z' || c > 'Z' && c < 'a' })
	if end < 0 {
		end = len(query)
	}
	switch strings.ToUpper(query[:end]) {
	case "SELECT", "EXPLAIN", "PRAGMA", "VALUES":
		return reads
	case "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE":
		return begins
	case "BEGIN":
		if upper := strings.ToUpper(query); strings.Contains(upper, "IMMEDIATE") || strings.Contains(upper, "EXCLUSIVE") {
			return locks
		}
		return begins
	case "WITH":
		upper := strings.ToUpper(query)
		for _, word := range []string{"INSERT", "UPDATE", "DELETE", "REPLACE"} {
			if strings.Contains(upper, word) {
				return writes
			}
		}
		return reads
	}
	return writes
}

// skipBlank skips white space and comments.
func skipBlank(query string) string {
	for {
		query = strings.TrimLeft(query, " \t\r\n;(")
		switch {
		case strings.HasPrefix(query, "--"):
			_, query, _ = strings.Cut(query, "\n")
		case strings.HasPrefix(query, "/*"):
			_, query, _ = strings.Cut(query, "*/")
		default:
			return query
		}
	}
}
