package wake_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var testName = regexp.MustCompile(`\b(?:Test|Example|Benchmark)[A-Z]\w*`)

// suitePart is a part of the suite of stores, as in TestStore/key.
var suitePart = regexp.MustCompile(`\bTestStore/(\w+)`)

// Every test that docs/guarantees.md names exists, and every test of the
// contract and the faults is named.
func TestTheTestsThatTheGuaranteesNameExist(t *testing.T) {
	doc, err := os.ReadFile("docs/guarantees.md")
	if err != nil {
		t.Fatal(err)
	}
	exist := declaredTests(t)
	named := map[string]bool{}
	for _, name := range testName.FindAllString(string(doc), -1) {
		named[name] = true
		if exist[name] == "" {
			t.Errorf("docs/guarantees.md names %s, which does not exist", name)
		}
	}
	suite, err := os.ReadFile("durable/storetest/storetest.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range suitePart.FindAllStringSubmatch(string(doc), -1) {
		if !strings.Contains(string(suite), `{"`+m[1]) {
			t.Errorf("docs/guarantees.md names %s, and the suite has no such part", m[0])
		}
	}
	if len(named) < 60 {
		t.Errorf("docs/guarantees.md names only %d tests", len(named))
	}
	for name, file := range exist {
		if (file == "contract_test.go" || file == "faults_test.go") && !named[name] {
			t.Errorf("docs/guarantees.md does not name %s of %s", name, file)
		}
	}
}

// declaredTests returns the files of the repository's tests by their names.
func declaredTests(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && testName.MatchString(f.Name.Name) {
				found[f.Name.Name] = path
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
