package report

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// Origin says when, where and how a benchmark ran: the paragraph above its
// table.
func Origin(command string) string {
	lines := []string{
		"Measured " + time.Now().UTC().Format(time.DateOnly) + " on " + machine() + ".",
		"Versions: " + versions() + "; commit " + commit() + ".",
		"Command: `" + command + "`.",
	}
	return strings.Join(lines, "\n") + "\n\n"
}

func machine() string {
	text := fmt.Sprintf("%s, %d cores", processor(), runtime.NumCPU())
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		version, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-")
		text += ", " + runtime.GOOS + " " + version
	}
	return text + ", " + runtime.Version()
}

func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	if m := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(info); m != nil {
		return string(m[1])
	}
	return runtime.GOARCH
}

// versions are those of the compared modules that this program is built with.
func versions() string {
	var found []string
	for _, name := range []string{"github.com/danielgtaylor/huma/v2", "github.com/go-chi/chi/v5"} {
		out, err := exec.Command("go", "list", "-m", "-f", "{{.Path}} {{.Version}}", name).Output()
		if err == nil {
			found = append(found, strings.TrimPrefix(strings.TrimSpace(string(out)), "github.com/"))
		}
	}
	return strings.Join(found, ", ")
}

func commit() string {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	text := strings.TrimSpace(string(out))
	if changed, err := exec.Command("git", "status", "--porcelain", "--", "..").Output(); err == nil && len(changed) > 0 {
		text += " with changes"
	}
	return text
}
