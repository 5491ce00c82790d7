package crm_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/wake-go/wake/examples/signup/internal/crm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newClient(t *testing.T, url string) *crm.Client {
	t.Helper()
	client, err := crm.NewClient(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func startStub(t *testing.T) *crm.Stub {
	t.Helper()
	stub, err := crm.StartStub(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stub.Close(); err != nil {
			t.Error(err)
		}
	})
	return stub
}

func contact(username string) crm.Contact {
	return crm.Contact{Username: username, Email: username + "@example.test"}
}

func TestOneContactHoweverOftenAdded(t *testing.T) {
	t.Parallel()
	stub := startStub(t)
	client := newClient(t, stub.URL()+"/")
	for _, username := range []string{"ada", "ada", "Ada", "bob"} {
		if err := client.Add(t.Context(), contact(username)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := fmt.Sprint(stub.Contacts()), "[{bob bob@example.test} {ada ada@example.test}]"; got != want {
		t.Errorf("contacts = %s, want %s", got, want)
	}
	response, err := http.Get(stub.URL() + "/contacts")
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer response.Body.Close()
	var listed []crm.Contact
	if err := json.NewDecoder(response.Body).Decode(&listed); err != nil || len(listed) != 2 {
		t.Errorf("GET /contacts = %v, %v", listed, err)
	}
}

func TestStubKeepsTheNewest(t *testing.T) {
	t.Parallel()
	stub := startStub(t)
	client := newClient(t, stub.URL())
	const added, kept = 1003, 1000
	for i := range added {
		if err := client.Add(t.Context(), contact(fmt.Sprint("user-", i))); err != nil {
			t.Fatal(err)
		}
	}
	contacts := stub.Contacts()
	if len(contacts) != kept || contacts[0].Username != "user-1002" || contacts[kept-1].Username != "user-3" {
		t.Errorf("%d contacts from %v to %v", len(contacts), contacts[0], contacts[len(contacts)-1])
	}
}

func TestStubRefuses(t *testing.T) {
	t.Parallel()
	stub := startStub(t)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for name, test := range map[string]struct{ key, body string }{
		"no key":      {"", `{"username":"ada"}`},
		"no username": {"k", `{}`},
		"not JSON":    {"k", `username=ada`},
		"too large":   {"k", `{"username":"` + strings.Repeat("a", 5<<10) + `"}`},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, stub.URL()+"/contacts", strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Idempotency-Key", test.key)
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s, want 400", name, response.Status)
		}
	}
	if contacts := stub.Contacts(); len(contacts) != 0 {
		t.Errorf("remembered %v", contacts)
	}
}

func TestErrorQuotesTheAnswerBriefly(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		for range 1024 {
			fmt.Fprint(w, strings.Repeat("down for maintenance ", 64))
		}
	}))
	defer server.Close()
	err := newClient(t, server.URL).Add(t.Context(), contact("ada"))
	if err == nil || !strings.Contains(err.Error(), `add "ada" to the CRM: it answered 503 Service Unavailable: "down`) {
		t.Fatalf("Add = %v", err)
	}
	if length := len(err.Error()); length > 400 {
		t.Errorf("the error has %d characters", length)
	}
}

func TestOnlyARefusalForGoodIsOne(t *testing.T) {
	t.Parallel()
	for status, final := range map[int]bool{400: true, 422: true, 401: false, 404: false, 408: false, 429: false, 500: false, 503: false} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		err := newClient(t, server.URL).Add(t.Context(), contact("ada"))
		if err == nil || errors.Is(err, crm.ErrRefused) != final {
			t.Errorf("after %d: %v, want ErrRefused: %t", status, err, final)
		}
		server.Close()
	}
}

func TestAddEndsWithItsContext(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		cancel()
		<-release
	}))
	defer server.Close()
	defer close(release)
	if err := newClient(t, server.URL).Add(ctx, contact("ada")); !errors.Is(err, context.Canceled) {
		t.Errorf("Add = %v, want the context's error", err)
	}
}

func TestNewClientRefuses(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "crm.example.com", "ftp://crm.example.com", "http://", "http://%zz"} {
		_, err := crm.NewClient(url)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", url)) || !strings.Contains(err.Error(), "write https://") {
			t.Errorf("NewClient(%q) = %v, want an error that shows how to write it", url, err)
		}
	}
}
