package sqlite_test

import (
	"database/sql"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/sqlite"
)

var (
	docColumn = regexp.MustCompile("(?m)^\\| `(\\w+)` \\|")
	docState  = regexp.MustCompile("(?m)^\\| (\\d+) \\| (\\w+) \\| `(\\w+)` \\|")
	docQuery  = regexp.MustCompile("(?s)```sql\n(.*?)```")
)

func schemaDoc(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/schema.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

// docTables returns the columns that the page explains, by table.
func docTables(t *testing.T) map[string][]string {
	t.Helper()
	tables := map[string][]string{}
	for section := range strings.SplitSeq(schemaDoc(t), "\n#") {
		name, text, _ := strings.Cut(section, "\n")
		name, ok := strings.CutPrefix(name, "## `")
		if !ok {
			continue
		}
		name = strings.TrimSuffix(name, "`")
		for _, m := range docColumn.FindAllStringSubmatch(text, -1) {
			tables[name] = append(tables[name], m[1])
		}
	}
	return tables
}

func texts(t *testing.T, db *sql.DB, query string, args ...any) (all []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// The page about the schema has every table and every column of a new file, in
// their order, and no others.
func TestTheSchemaIsDocumented(t *testing.T) {
	db := open(t, sqlite.Config{}).DB()
	documented := docTables(t)
	tables := texts(t, db, `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`)
	if len(tables) < 10 {
		t.Fatalf("a new file has the tables %q only", tables)
	}
	for _, table := range tables {
		columns := texts(t, db, `SELECT name FROM pragma_table_info(?) ORDER BY cid`, table)
		if !slices.Equal(columns, documented[table]) {
			t.Errorf("docs/schema.md explains the columns %q of %s, which has %q", documented[table], table, columns)
		}
		delete(documented, table)
	}
	for table := range documented {
		t.Errorf("docs/schema.md explains %s, which does not exist", table)
	}
}

func TestTheNumbersOfStatesAreDocumented(t *testing.T) {
	found := docState.FindAllStringSubmatch(schemaDoc(t), -1)
	if len(found) != int(durable.Cancelled) {
		t.Fatalf("docs/schema.md has %d states, there are %d", len(found), durable.Cancelled)
	}
	for i, m := range found {
		state := durable.State(i + 1)
		table := "wake_task"
		if state.Finished() {
			table = "wake_done"
		}
		if m[1] != strconv.Itoa(int(state)) || m[2] != state.String() || m[3] != table {
			t.Errorf("docs/schema.md says of state %d: %s, %s, in %s; it is %v, in %s", state, m[1], m[2], m[3], state, table)
		}
	}
}

func TestTheQueriesOfTheDocumentationRun(t *testing.T) {
	s := open(t, sqlite.Config{})
	boot := durable.Boot(durable.NewID())
	res := commit(t, s, &durable.Batch{
		Boot: boot, Inserts: []durable.Insert{newInsert("waits"), newInsert("dies")},
		Claims: []durable.Claim{{Queue: durable.DefaultQueue, Kinds: []string{"dies"}, Limit: 1}},
	})
	commit(t, s, &durable.Batch{Boot: boot, Finishes: []durable.Finish{{
		Ref: res.Claimed[0].Ref, Move: durable.MoveExhaust, Error: &durable.AttemptError{Attempt: 1, Cause: "error", Message: "no"},
	}}})
	queries := docQuery.FindAllStringSubmatch(schemaDoc(t), -1)
	if len(queries) < 4 {
		t.Fatalf("docs/schema.md has %d queries", len(queries))
	}
	for _, m := range queries {
		rows, err := s.DB().QueryContext(t.Context(), m[1])
		if err != nil {
			t.Errorf("%v\n%s", err, m[1])
			continue
		}
		if !rows.Next() {
			t.Errorf("no row (%v) of\n%s", rows.Err(), m[1])
		}
		rows.Close()
	}
}
