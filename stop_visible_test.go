//go:build unix

package wake_test

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wake-go/wake/lifespan"
)

// wantHealth checks a health answer.
func wantHealth(t *testing.T, url string, code int, status string) answer {
	t.Helper()
	got := ask(newVisitor(t), http.MethodGet, url, nil)
	want(t, got, code)
	if !strings.Contains(got.body, `"status":"`+status+`"`) {
		t.Errorf("%s says %q, want the status %q", url, got.body, status)
	}
	return got
}

// waitRefused waits until no connection is accepted any more.
func waitRefused(t *testing.T, addr string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		conn, err := net.DialTimeout("tcp", addr, patience)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		if err == nil {
			conn.Close()
		}
	}
	t.Error("connections are accepted to the end")
}

func TestADrainShowsWhileRequestsAreStillAnswered(t *testing.T) {
	t.Parallel()
	p := start(t, "delayed shop", invocation{env: []string{"WAKE_ADMIN=127.0.0.1:0", "WAKE_DRAIN=1h"}})
	url, admin := p.url(), p.admin()
	wantHealth(t, url+"/readyz", 200, "ok")
	wantHealth(t, admin+"/readyz", 200, "ok")
	waiting := asking(newVisitor(t), "GET", url+"/closed")
	p.printed("waiting request begins")

	p.signal(syscall.SIGTERM)
	p.logged("draining")
	wantHealth(t, admin+"/readyz", 503, "draining")
	ready := wantHealth(t, url+"/readyz", 503, "draining") // on a new connection: the listener is still open
	ping := ask(newVisitor(t), "GET", url+"/ping", nil)
	want(t, ping, 200)
	for _, got := range []answer{ready, ping} {
		if !got.closed {
			t.Error("an answer during the drain does not say Connection: close")
		}
	}
	wantHealth(t, url+"/livez", 200, "ok")

	waitRefused(t, strings.TrimPrefix(url, "http://"))
	wantHealth(t, admin+"/readyz", 503, "draining")
	wantHealth(t, admin+"/livez", 200, "ok")
	wantStatus(t, admin, "draining", 1)
	p.signal(syscall.SIGUSR1)
	want(t, receive(t, waiting, "the answer of the request under way"), 200)
	p.wantExit(lifespan.ExitOK)
	p.wantCleanedUpLast()
}

func wantStatus(t *testing.T, admin, phase string, requests int) {
	t.Helper()
	got := ask(newVisitor(t), "GET", admin+"/status", nil)
	want(t, got, 200)
	var status struct {
		Phase    string
		Requests int
		Tasks    map[string]any
	}
	if err := json.Unmarshal([]byte(got.body), &status); err != nil {
		t.Errorf("the status %q: %v", got.body, err)
	}
	if status.Phase != phase || status.Requests != requests || status.Tasks == nil {
		t.Errorf("the status is %s; want the phase %q and %d requests", got.body, phase, requests)
	}
}

func TestTheAdminListenerShowsTheStatusAndNothingElse(t *testing.T) {
	t.Parallel()
	p := start(t, "stubborn shop", invocation{env: []string{"WAKE_ADMIN=localhost:0", "WAKE_DRAIN=1h"}})
	admin := p.admin()
	wantStatus(t, admin, "ready", 0)
	waiting := asking(newVisitor(t), "GET", p.url()+"/closed")
	p.printed("waiting request begins")
	wantStatus(t, admin, "ready", 1)
	want(t, ask(newVisitor(t), "GET", admin+"/ping", nil), 404)
	want(t, ask(newVisitor(t), "GET", p.url()+"/status", nil), 404)
	want(t, ask(newVisitor(t), "POST", admin+"/status", nil), 405)
	p.signal(syscall.SIGUSR1)
	want(t, receive(t, waiting, "the answer"), 200)
	p.signal(syscall.SIGTERM)
	p.wantExit(lifespan.ExitOK)
}
