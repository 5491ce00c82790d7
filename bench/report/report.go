// Package report writes what a benchmark has found into a Markdown document.
package report

import (
	"fmt"
	"os"
	"strings"
)

// A Table is a table in Markdown.
type Table struct {
	head []string
	rows [][]string
}

// NewTable makes a table with a head.
func NewTable(head ...string) *Table { return &Table{head: head} }

// Row adds a row.
func (t *Table) Row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *Table) String() string {
	var b strings.Builder
	line := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	line(t.head)
	b.WriteString("|---" + strings.Repeat("|---", len(t.head)-1) + "|\n")
	for _, row := range t.rows {
		line(row)
	}
	return b.String()
}

// Write puts text between the markers of a section of a document:
//
//	<!-- begin name -->
//	<!-- end name -->
func Write(file, section, text string) error {
	doc, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	begin, end := "<!-- begin "+section+" -->\n", "<!-- end "+section+" -->"
	before, rest, ok := strings.Cut(string(doc), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no section %q between markers", file, section)
	}
	return os.WriteFile(file, []byte(before+begin+text+end+after), 0o644)
}
