package wake_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// markdown returns the documents that users read, by path.
func markdown(t *testing.T) map[string]string {
	t.Helper()
	docs := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			text, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			docs[p] = string(text)
		}
	}
	if len(docs) < 8 {
		t.Fatalf("only %d documents found", len(docs))
	}
	return docs
}

var goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")

func TestProgramsInTheDocsCompile(t *testing.T) {
	dir := t.TempDir()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile("go.sum")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "go.sum"), string(sums))
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	_, requirements, _ := strings.Cut(string(mod), "\n")
	write(t, filepath.Join(dir, "go.mod"), "module example.test/docs\n"+requirements+
		"\nrequire github.com/wake-go/wake v0.0.0\nreplace github.com/wake-go/wake => "+root+"\n")

	programs := 0
	for path, text := range markdown(t) {
		for i, block := range goBlock.FindAllStringSubmatch(text, -1) {
			if !strings.HasPrefix(block[1], "package main") {
				continue
			}
			programs++
			file := "main.go"
			if strings.Contains(block[1], "testing.T") {
				file = "main_test.go"
			}
			name := strings.TrimSuffix(filepath.Base(path), ".md")
			write(t, filepath.Join(dir, fmt.Sprintf("%s%d", name, i), file), block[1])
		}
	}
	if programs < 4 {
		t.Fatalf("only %d programs found in the documents; have their code blocks changed?", programs)
	}
	for _, args := range [][]string{{"vet", "-mod=mod", "./..."}, {"test", "-mod=mod", "./..."}} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

var code = regexp.MustCompile("(?s)```.*?```|`[^`]*`")

var link = regexp.MustCompile(`\]\(([^)#]+)[^)]*\)|src="([^"]+)"`)

func TestLinksInTheDocsLeadSomewhere(t *testing.T) {
	for path, text := range markdown(t) {
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(text, ""), -1) {
			target := m[1] + m[2]
			if strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), target)); err != nil {
				t.Errorf("%s links to %s, which is not there", path, target)
			}
		}
	}
}

// The README's first program is the package's example: what runs is what is shown.
func TestTheReadmeShowsTheExampleThatRuns(t *testing.T) {
	readme := goBlock.FindStringSubmatch(markdown(t)["README.md"])
	if readme == nil {
		t.Fatal("README.md has no Go program")
	}
	example, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(readme[1], "\n\n") {
		part = strings.TrimSpace(part)
		if strings.HasPrefix(part, "func main()") {
			continue // the example's is a function of another name, with requests instead of Main
		}
		if !strings.Contains(string(example), part) {
			t.Errorf("example_test.go does not have this part of README.md:\n%s", part)
		}
	}
}
