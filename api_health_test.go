package wake_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/waketest"
)

// startWithChecks runs an application whose lifespan adds checks.
func startWithChecks(t *testing.T, logs *logbook, checks map[string]func(context.Context) error) *waketest.Client {
	t.Helper()
	app := wake.New("Checked", "1.0", func(ctx context.Context, yield func(int) error) error {
		wake.Check(ctx, "replaced", func(context.Context) error { return errors.New("the first one") })
		wake.Check(ctx, "replaced", func(context.Context) error { return nil })
		for name, check := range checks {
			wake.Check(ctx, name, check)
		}
		return yield(0)
	})
	return waketest.Start(t, app, waketest.With(logs.option()))
}

func TestReadinessFollowsTheChecksAndTellsTheirNamesOnly(t *testing.T) {
	var logs logbook
	client := startWithChecks(t, &logs, map[string]func(context.Context) error{
		"db":    func(context.Context) error { return errors.New("password hunter2 refused") },
		"cache": func(context.Context) error { panic("hunter2") },
		"mail":  func(context.Context) error { return nil },
	})
	res := client.Get("/readyz")
	if res.Status != http.StatusServiceUnavailable || string(res.Body) != `{"status":"failing","failing":["cache","db"]}`+"\n" {
		t.Errorf("got %v", res)
	}
	if !strings.Contains(logs.String(), "password hunter2 refused") || !strings.Contains(logs.String(), "the check panicked: hunter2") {
		t.Errorf("the log does not have the errors:\n%s", &logs)
	}
	if res := client.Get("/livez"); res.Status != http.StatusOK || string(res.Body) != `{"status":"ok"}`+"\n" {
		t.Errorf("alive: %v", res)
	}
}

func TestReadyWithoutFailingChecks(t *testing.T) {
	var logs logbook
	client := startWithChecks(t, &logs, nil)
	if res := client.Get("/readyz"); res.Status != http.StatusOK || string(res.Body) != `{"status":"ok"}`+"\n" {
		t.Errorf("got %v", res)
	}
	if got := client.Get("/readyz").Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control is %q", got)
	}
}

func TestACheckThatHangsHoldsNoProbeAndOneGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs logbook
		running, most := 0, 0
		release := make(chan struct{})
		client := startWithChecks(t, &logs, map[string]func(context.Context) error{
			"deaf": func(context.Context) error {
				running++
				most = max(most, running)
				<-release
				running--
				return nil
			},
		})
		for range 3 {
			began := time.Now()
			res := client.Get("/readyz")
			if res.Status != http.StatusServiceUnavailable || !strings.Contains(res.String(), `"deaf"`) {
				t.Errorf("got %v", res)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("the probe took %v", took)
			}
		}
		close(release)
		synctest.Wait()
		if res := client.Get("/readyz"); res.Status != http.StatusOK || most != 1 {
			t.Errorf("afterwards: %v; %d checks ran at once", res, most)
		}
		if err := client.Stop(); err != nil {
			t.Error(err)
		}
	})
}
