package durable_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
)

// docTable returns the rows of a table of docs/architecture.md, which stands
// between two marks, without its header.
func docTable(t *testing.T, name string) (header []string, rows [][]string) {
	t.Helper()
	doc, err := os.ReadFile("../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(doc), "<!-- begin "+name+" -->\n")
	text, _, ok := strings.Cut(text, "<!-- end "+name+" -->")
	if !ok {
		t.Fatalf("docs/architecture.md has no table %q", name)
	}
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	if len(rows) < 3 {
		t.Fatalf("the table %q of docs/architecture.md has %d lines", name, len(rows))
	}
	return rows[0], rows[2:]
}

// endings returns the states to which a move leads from another one, with a
// delay and without, in a first crash and in the last.
func endings(s durable.State, m durable.Move) (names []string) {
	for _, delay := range []time.Duration{time.Minute, 0} {
		for _, crashes := range []int{0, durable.MaxCrashes - 1} {
			next, err := durable.Advance(durable.Status{State: s, Attempt: 1, Crashes: crashes}, m, epoch, delay)
			if name := next.State.String(); err == nil && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// The table of moves in the documentation is what Advance does.
func TestTheMovesAreDocumented(t *testing.T) {
	header, rows := docTable(t, "moves")
	if len(rows) != int(durable.Cancelled) || len(header) != int(durable.MoveRetry)+1 {
		t.Fatalf("the table has %d states and %d moves", len(rows), len(header)-1)
	}
	for i, row := range rows {
		s := durable.State(i + 1)
		if row[0] != s.String() {
			t.Fatalf("row %d is that of %q, want %v", i+1, row[0], s)
		}
		for m := durable.MovePromote; m <= durable.MoveRetry; m++ {
			if header[m] != m.String() {
				t.Fatalf("column %d is that of %q, want %v", m, header[m], m)
			}
			want := strings.Join(endings(s, m), " or ")
			if want == "" {
				want = "–"
			}
			if row[m] != want {
				t.Errorf("docs/architecture.md says that %v leads from %v to %q, and it is %q", m, s, row[m], want)
			}
		}
	}
}

// change says how a number has changed, as the documentation does.
func change(from, to int64) string {
	switch {
	case from == to:
		return "–"
	case to == 0:
		return "0"
	}
	return fmt.Sprintf("%+d", to-from)
}

// What moves change besides the state is in the documentation's second table.
func TestTheEffectsOfMovesAreDocumented(t *testing.T) {
	const delay = time.Hour
	documented := map[string][]string{}
	_, rows := docTable(t, "effects")
	for _, row := range rows {
		for state := range strings.SplitSeq(row[1], ", ") {
			documented[row[0]+" "+state] = row[2:]
		}
	}
	for s := durable.Ready; s <= durable.Cancelled; s++ {
		for m := durable.MovePromote; m <= durable.MoveRetry; m++ {
			was := durable.Status{State: s, Attempt: 5, Crashes: 1, Fence: 7, RunAt: epoch.Add(-time.Hour)}
			next, err := durable.Advance(was, m, epoch, delay)
			pair := fmt.Sprint(m, " ", s)
			said, ok := documented[pair]
			delete(documented, pair)
			if ok != (err == nil) {
				t.Errorf("%s: in docs/architecture.md: %v; Advance: %v", pair, ok, err)
			}
			if err != nil || !ok {
				continue
			}
			when := map[time.Time]string{was.RunAt: "–", epoch: "now", epoch.Add(delay): "now and the delay"}[next.RunAt]
			want := []string{
				change(int64(was.Attempt), int64(next.Attempt)), change(int64(was.Crashes), int64(next.Crashes)), change(was.Fence, next.Fence), when,
			}
			if !slices.Equal(said, want) {
				t.Errorf("docs/architecture.md says of %s %q, and it is %q", pair, said, want)
			}
		}
	}
	for pair := range documented {
		t.Errorf("docs/architecture.md has %s, which is no move", pair)
	}
}
