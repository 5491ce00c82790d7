package wake_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const modulePath = "github.com/wake-go/wake"

// A goPackage is what go list tells of a package.
type goPackage struct {
	ImportPath, Dir, Doc string
	Standard             bool
	GoFiles, Imports     []string
	Module               *struct{ Path string }
}

func goList(t *testing.T, args ...string) (packages []goPackage) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Dir,Doc,Standard,GoFiles,Imports,Module"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list %q: %v", args, err)
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// inModule returns an import path relative to the module, "." for its root.
func inModule(path string) (relative string, ok bool) {
	if path == modulePath {
		return ".", true
	}
	return strings.CutPrefix(path, modulePath+"/")
}

func TestPackagesImportOnlyWhatTheTableOfTheHouseAllows(t *testing.T) {
	allowed := map[string][]string{ // nil: the standard library alone
		"lifespan":          nil,
		"background":        nil,
		"durable":           {}, // and small libraries
		"durable/memory":    {"durable"},
		"durable/sqlite":    {"durable"},
		"durable/postgres":  {"durable"},
		"durable/storetest": {"durable"},
		".":                 {"lifespan", "background", "durable", "durable/sqlite"},
		"waketest":          {".", "lifespan", "background", "durable", "durable/memory", "durable/sqlite"},
	}
	standard := map[string]bool{}
	for _, p := range goList(t, "-deps", "./...") {
		standard[p.ImportPath] = p.Standard
	}
	for _, p := range goList(t, "./...") {
		name, _ := inModule(p.ImportPath)
		may, known := allowed[name]
		if !known && !strings.HasPrefix(name, "examples/") && !strings.HasPrefix(name, "internal/") {
			t.Errorf("package %s is not in the table: say what it may import", name)
		}
		for _, path := range p.Imports {
			imported, own := inModule(path)
			switch {
			case own && known && !slices.Contains(may, imported) && !strings.HasPrefix(imported, "internal/"):
				t.Errorf("package %s imports %s", name, imported)
			case own && !known && strings.HasPrefix(imported, "examples/") && !strings.HasPrefix(imported, exampleOf(name)+"/"):
				t.Errorf("package %s imports another example's %s", name, imported)
			case !own && known && may == nil && !standard[path]:
				t.Errorf("package %s imports %s, which is not of the standard library", name, path)
			}
		}
	}
}

// exampleOf returns the program that a package of an example belongs to.
func exampleOf(name string) string {
	parts := strings.SplitN(name, "/", 3)
	return strings.Join(parts[:min(2, len(parts))], "/")
}

func TestEveryPackageHasAComment(t *testing.T) {
	for _, p := range goList(t, "./...") {
		if p.Doc == "" {
			t.Errorf("package %s has no package comment", p.ImportPath)
		}
	}
}

// mutable are the package variables that may change, and why.
var mutable = map[string]string{
	"background.processors": "GOMAXPROCS belongs to the process, and several runners raise it together",
	"durable.stateNames":    "names, which nobody changes",
	"durable.moveNames":     "names, which nobody changes",
	"sqlite.migrations":     "statements, which nobody changes",
	"postgres.migrations":   "statements, which nobody changes",
	"sqlite.networks":       "names, which nobody changes",
}

// constant are the calls whose result does not change.
var constant = regexp.MustCompile(`^(errors\.New|fmt\.Errorf|template\.Must|regexp\.MustCompile)\(`)

func TestThereIsNoMutablePackageStateAndNoInit(t *testing.T) {
	for _, p := range goList(t, "./...") {
		name, _ := inModule(p.ImportPath)
		if strings.HasPrefix(name, "examples/") {
			continue // a program may declare its tasks as variables
		}
		for _, file := range p.GoFiles {
			path := filepath.Join(p.Dir, file)
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			fset := token.NewFileSet()
			parsed, err := parser.ParseFile(fset, path, source, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, decl := range parsed.Decls {
				if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
					t.Errorf("%s has an init function", path)
				}
				for _, spec := range variables(decl) {
					text := func(n ast.Node) string {
						return string(source[fset.Position(n.Pos()).Offset:fset.Position(n.End()).Offset])
					}
					checkVariable(t, parsed.Name.Name, spec, text)
				}
			}
		}
	}
}

func variables(decl ast.Decl) (specs []*ast.ValueSpec) {
	if g, ok := decl.(*ast.GenDecl); ok && g.Tok == token.VAR {
		for _, s := range g.Specs {
			specs = append(specs, s.(*ast.ValueSpec))
		}
	}
	return specs
}

func checkVariable(t *testing.T, pkg string, spec *ast.ValueSpec, text func(ast.Node) string) {
	t.Helper()
	for i, name := range spec.Names {
		fixed := name.Name == "_" || i < len(spec.Values) && constant.MatchString(text(spec.Values[i]))
		if _, explained := mutable[pkg+"."+name.Name]; !fixed && !explained {
			t.Errorf("%s.%s is package state: put it into the application, or explain it in this test", pkg, name.Name)
		}
	}
}

func TestTheModuleReplacesNothing(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mod)) {
		if strings.HasPrefix(strings.TrimSpace(line), "replace") {
			t.Errorf("go.mod: %s", line)
		}
	}
}

// What a program that imports wake links, besides the standard library.
func TestProgramsLinkOnlyTheChosenDependencies(t *testing.T) {
	allowed := []string{
		modulePath,
		"github.com/danielgtaylor/huma/v2",                         // operations, validation, OpenAPI
		"github.com/alecthomas/kong",                               // commands and flags
		"github.com/coreos/go-systemd/v22",                         // notification and activation
		"github.com/felixge/httpsnoop",                             // whether a handler has begun to answer
		"github.com/lmittmann/tint",                                // logs on terminals
		"github.com/swaggest/swgui", "github.com/vearutop/statigz", // the API page
		"golang.org/x/sys",          // of tint
		"github.com/robfig/cron/v3", // cron expressions
		"github.com/gofrs/flock",    // which processes on a file live
		"modernc.org/sqlite",        // the queue's file, without cgo
		// of modernc.org/sqlite:
		"modernc.org/libc", "modernc.org/mathutil", "modernc.org/memory",
		"github.com/dustin/go-humanize", "github.com/google/uuid", "github.com/remyoudompheng/bigfft",
	}
	linked := map[string]bool{}
	for _, p := range goList(t, "-deps", ".", "./waketest") {
		if p.Module == nil {
			continue
		}
		linked[p.Module.Path] = true
		if !slices.Contains(allowed, p.Module.Path) {
			t.Errorf("%s is linked into every program; %s needs it", p.Module.Path, p.ImportPath)
		}
	}
	if !linked["github.com/danielgtaylor/huma/v2"] {
		t.Error("go list shows no dependencies; has its output changed?")
	}
}
