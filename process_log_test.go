//go:build unix

package wake_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/wake-go/wake/lifespan"
)

// told reports the request that an answer belongs to, after it has checked
// that nothing internal is in the answer.
func told(t *testing.T, got answer) (request string) {
	t.Helper()
	want(t, got, http.StatusInternalServerError)
	for _, internal := range []string{secret, "database", "state", "goroutine", ".go:"} {
		if strings.Contains(got.body, internal) {
			t.Errorf("the client is told %q", got.body)
		}
	}
	var problem struct{ Instance string }
	if err := json.Unmarshal([]byte(got.body), &problem); err != nil || !strings.HasPrefix(problem.Instance, "urn:request:") {
		t.Errorf("the answer is %q, error %v; want a problem with the request's id", got.body, err)
	}
	return strings.TrimPrefix(problem.Instance, "urn:request:")
}

func TestErrorsAndPanicsAreLoggedWithTheRequestAndNotShown(t *testing.T) {
	t.Parallel()
	p := start(t, "leaky shop", invocation{})
	client := newVisitor(t)
	for _, test := range []struct{ path, message, key, says, stack string }{
		{"/error", "operation failed", "error", "the database of hunter2 has failed", ""},
		{"/panic", "handler panicked", "panic", "the state of hunter2 is broken", "wake_test.leakyShop.func"},
	} {
		request := told(t, ask(client, "GET", p.url()+test.path, nil))
		entry := p.logged(test.message)
		if entry["request"] != request || entry[test.key] != test.says || entry["level"] != "ERROR" {
			t.Errorf("%s: the log says %v; want the request %q and %q", test.path, entry, request, test.says)
		}
		if stack, _ := entry["stack"].(string); !strings.Contains(stack, test.stack) {
			t.Errorf("%s: the stack is %q, want %q in it", test.path, stack, test.stack)
		}
	}
	p.signal(syscall.SIGTERM)
	p.wantExit(lifespan.ExitOK)
	p.wantLogOfJSON()
}

func TestAPanicOfAMountedHandlerIsAnswered500WithTheRequest(t *testing.T) {
	t.Parallel()
	p := start(t, "leaky shop", invocation{})
	request := told(t, ask(newVisitor(t), "GET", p.url()+"/mounted", nil))
	entry := p.logged("handler panicked")
	stack, _ := entry["stack"].(string)
	if entry["request"] != request || !strings.Contains(stack, "wake_test.leakyShop.func") {
		t.Errorf("the log says %v, want the request %q", entry, request)
	}
	p.signal(syscall.SIGTERM)
	p.wantExit(lifespan.ExitOK)
	p.wantLogOfJSON()
}

func TestTasksThatFailAreLoggedWithTheirRequest(t *testing.T) {
	t.Parallel()
	p := start(t, "leaky shop", invocation{})
	req, err := http.NewRequest("POST", p.url()+"/tasks", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Request-Id", "order-7")
	req.Header.Set("Authorization", "Bearer "+secret)
	res, err := newVisitor(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	p.signal(syscall.SIGTERM)
	p.wantExit(lifespan.ExitOK) // a task that fails is no failure of the program
	failed := map[any]map[string]any{}
	for _, entry := range p.wantLogOfJSON() {
		if entry["msg"] == "task failed" {
			failed[entry["task"]] = entry
		}
	}
	for task, says := range map[string]string{"failing task": "no paper", "panicking task": "panic: no ink"} {
		if entry := failed[task]; entry["error"] != says || entry["request"] != "order-7" {
			t.Errorf("the log of %q says %v", task, entry)
		}
	}
	if stack, _ := failed["panicking task"]["stack"].(string); !strings.Contains(stack, "wake_test.leakyShop.func") {
		t.Errorf("the panic's stack is %q", stack)
	}
	if strings.Contains(p.log.String(), secret) {
		t.Errorf("the log has the request's secret:\n%s", p.log)
	}
}

func TestWhatClientsSendIsNotLoggedAsLinesOfItsOwn(t *testing.T) {
	t.Parallel()
	p := start(t, "leaky shop", invocation{})
	addr := strings.TrimPrefix(p.url(), "http://")
	for _, request := range []string{
		"GET /panic?token=" + secret + " HTTP/1.1\r\nHost: shop\r\nX-Request-Id: a\"b\r\nConnection: close\r\n\r\n",
		"NONSENSE\r\n\r\n",
		"GET /mounted HTTP/1.1\r\nHost: shop\r\nX-Request-Id: {\"msg\":\"forged\"}\r\nConnection: close\r\n\r\n",
		"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", // TLS to a port without it
	} {
		conn := dial(t, addr, request)
		if c, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite() // a server that has closed already is as good
		}
		wantClosed(t, conn)
	}
	p.signal(syscall.SIGTERM)
	p.wantExit(lifespan.ExitOK)
	for _, entry := range p.wantLogOfJSON() {
		if id, _ := entry["request"].(string); strings.ContainsAny(id, `"{`) {
			t.Errorf("a client has chosen the request id %q", id)
		}
	}
	if strings.Contains(p.log.String(), "token="+secret) {
		t.Errorf("the log has a query:\n%s", p.log)
	}
}

// wantLogOfJSON checks that each line of the log, after the end, is JSON with
// time, level and message.
func (p *process) wantLogOfJSON() (entries []map[string]any) {
	p.t.Helper()
	for _, line := range p.log.all() {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			p.t.Errorf("the line %q is no JSON: %v", line, err)
			continue
		}
		for _, key := range []string{"time", "level", "msg"} {
			if text, _ := entry[key].(string); text == "" {
				p.t.Errorf("the line %q has no %s", line, key)
			}
		}
		entries = append(entries, entry)
	}
	return entries
}

func TestTheLogIsTextWhereItIsAskedFor(t *testing.T) {
	t.Parallel()
	p := start(t, "set-up fails", invocation{args: []string{"--log-format=text"}})
	p.wantExit(lifespan.ExitStart)
	if text := p.log.String(); strings.Contains(text, "{") || strings.Contains(text, "\x1b") || !strings.Contains(text, "the database is not there") {
		t.Errorf("the log is %q; want plain text without colours", text)
	}
}

func TestALogLevelLeavesOutWhatIsBelow(t *testing.T) {
	t.Parallel()
	for level, want := range map[string]bool{"debug": true, "error": false} {
		p := start(t, "set-up fails", invocation{env: []string{"WAKE_LOG_LEVEL=" + level}})
		p.wantExit(lifespan.ExitStart)
		if got := strings.Contains(p.log.String(), `"starting"`); got != want {
			t.Errorf("at level %s, \"starting\" is logged: %v", level, got)
		}
	}
}
