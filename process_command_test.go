//go:build unix

package wake_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wake-go/wake/lifespan"
)

// stdout is all that the process has printed, after its end.
func (p *process) stdout() string { return strings.Join(p.out.all(), "\n") }

func TestMistakesOnTheCommandLineExitWith2AndAreExplained(t *testing.T) {
	for _, test := range []struct {
		name string
		how  invocation
		says []string
	}{
		{"unknown command", invocation{args: []string{"swim"}}, []string{"swim"}},
		{"unknown flag", invocation{args: []string{"--swim"}}, []string{"--swim", "Usage:"}},
		{"no duration", invocation{args: []string{"--drain", "soon"}}, []string{"--drain", "soon"}},
		{"no duration in the environment", invocation{env: []string{"WAKE_DRAIN=soon"}}, []string{"WAKE_DRAIN", "soon"}},
		{"a drain of no time", invocation{args: []string{"--drain", "0s"}}, []string{"--drain", "positive"}},
		{"a drain of negative time", invocation{env: []string{"WAKE_DRAIN=-1s"}}, []string{"WAKE_DRAIN", "positive"}},
		{"unknown level", invocation{args: []string{"--log-level", "loud"}}, []string{"loud", "debug, info, warn or error"}},
		{"unknown format", invocation{env: []string{"WAKE_LOG_FORMAT=xml"}}, []string{"xml", "auto, text or json"}},
		{"a variable that is empty is not set", invocation{args: []string{"swim"}, env: []string{"WAKE_DRAIN=", "WAKE_LOG_LEVEL="}}, []string{"swim"}},
		{"argument of a command", invocation{args: []string{"openapi", "everything"}}, []string{"everything"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, "set-up fails", test.how)
			p.wantExit(lifespan.ExitUsage)
			for _, part := range append(test.says, "error: ") {
				if !strings.Contains(p.log.String(), part) {
					t.Errorf("it does not say %q:\n%s", part, p.log)
				}
			}
			if text := p.stdout(); text != "" {
				t.Errorf("it has written to stdout, where no program looks for mistakes:\n%s", text)
			}
		})
	}
}

func TestOptionsThatCannotBeAreExplainedAndExitWith3(t *testing.T) {
	t.Parallel()
	p := start(t, "wrong options", invocation{})
	p.wantExit(lifespan.ExitStart)
	if text := fmt.Sprint(p.logged("not started")["error"]); !strings.Contains(text, "IdleTimeout is -1ns; it must be positive") {
		t.Errorf("it says %q", text)
	}
}

func TestOpenAPIPrintsTheDocumentWithoutSetUp(t *testing.T) {
	t.Parallel()
	p := start(t, "set-up fails", invocation{args: []string{"openapi"}})
	p.wantExit(lifespan.ExitOK)
	var document struct {
		OpenAPI string
		Info    struct{ Title string }
		Paths   map[string]any
	}
	if err := json.Unmarshal([]byte(p.stdout()), &document); err != nil {
		t.Fatalf("it is no JSON: %v\n%s", err, p.stdout())
	}
	if !strings.HasPrefix(document.OpenAPI, "3.1") || document.Info.Title != "Short-lived shop" || document.Paths["/ping"] == nil {
		t.Errorf("the document is %+v", document)
	}
	if p.log.String() != "\t" {
		t.Errorf("it has written to stderr: %s", p.log)
	}
}

func TestOpenAPIPrintsYAML(t *testing.T) {
	t.Parallel()
	p := start(t, "set-up fails", invocation{args: []string{"openapi", "--yaml"}})
	p.wantExit(lifespan.ExitOK)
	for _, line := range []string{"\nopenapi: 3.1.0", "\n  title: Short-lived shop", "\n  /ping:"} {
		if !strings.Contains("\n"+p.stdout(), line) {
			t.Errorf("it has no line %q:\n%s", line, p.stdout())
		}
	}
}

func TestCheckTellsWhetherSetUpAndCleanUpSucceed(t *testing.T) {
	for program, test := range map[string]struct {
		code int
		says string
	}{
		"stubborn shop":  {lifespan.ExitOK, "ok: set-up and clean-up succeed"},
		"set-up fails":   {lifespan.ExitStart, "start-up failed: the database is not there"},
		"set-up panics":  {lifespan.ExitStart, "start-up failed: panic: the set-up is broken"},
		"set-up hangs":   {lifespan.ExitStart, "set-up passed"},
		"clean-up fails": {lifespan.ExitCleanup, "clean-up failed: the database does not close"},
	} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			// Opening a port would be an error.
			p := start(t, program, invocation{args: []string{"check"}, env: []string{"WAKE_ADDR=" + taken(t)}})
			p.wantExit(test.code)
			if all := p.String(); !strings.Contains(all, test.says) {
				t.Errorf("it does not say %q:%s", test.says, all)
			}
		})
	}
}

func TestHelpListsCommandsAndVariables(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"serve", "--help"}, {"-h"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			p := start(t, "set-up fails", invocation{args: args, env: []string{"WAKE_LOG_FORMAT=auto"}})
			p.wantExit(lifespan.ExitOK)
			parts := []string{"WAKE_LOG_LEVEL", "WAKE_LOG_FORMAT"}
			if len(args) == 1 {
				parts = append(parts, "serve", "openapi", "check")
			} else {
				parts = append(parts, "--addr", "WAKE_ADDR", "WAKE_ADMIN", "WAKE_DRAIN", "127.0.0.1:8000", "30s")
			}
			for _, part := range parts {
				if !strings.Contains(p.stdout(), part) {
					t.Errorf("it does not mention %q:\n%s", part, p.stdout())
				}
			}
		})
	}
}

func TestFlagsGoOverTheEnvironmentAndTheEnvironmentOverOptions(t *testing.T) {
	unset := []string{"WAKE_ADDR=", "WAKE_ADMIN="}
	other := "127.0.0.2:0"
	for _, test := range []struct {
		name       string
		how        invocation
		url, admin string
		drain      time.Duration
	}{
		{"options", invocation{env: unset}, "http://127.0.0.1:", "http://127.0.0.1:", 7 * time.Second},
		{"environment", invocation{env: []string{"WAKE_ADDR=" + other, "WAKE_ADMIN=" + other, "WAKE_DRAIN=8s"}}, "http://127.0.0.2:", "http://127.0.0.2:", 8 * time.Second},
		{"flags", invocation{
			env:  []string{"WAKE_ADDR=192.0.2.1:1", "WAKE_ADMIN=192.0.2.1:1", "WAKE_DRAIN=8s"},
			args: []string{"--addr", other, "--admin=off", "--drain=9s"},
		}, "http://127.0.0.2:", "", 9 * time.Second},
		{"flags of the command", invocation{env: unset, args: []string{"serve", "--addr", other, "--drain=9s"}}, "http://127.0.0.2:", "http://127.0.0.1:", 9 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, "optioned shop", test.how)
			ready := p.logged("ready")
			for key, want := range map[string]string{"url": test.url, "admin": test.admin} {
				if got, _ := ready[key].(string); !strings.HasPrefix(got, want) || want == "" && got != "" {
					t.Errorf("%s is %q, want %q", key, got, want)
				}
			}
			p.signal(syscall.SIGTERM)
			if limit := p.logged("draining")["limit"]; limit != test.drain.String() {
				t.Errorf("the drain's limit is %v, want %v", limit, test.drain)
			}
			p.wantExit(lifespan.ExitOK)
		})
	}
}
