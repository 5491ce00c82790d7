package wake_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/memory"
	"github.com/wake-go/wake/waketest"
)

// A hangingStore's commits do not come back while it hangs.
type hangingStore struct {
	*memory.Store
	hangs   atomic.Bool
	release chan struct{}
}

func (s *hangingStore) Commit(ctx context.Context, b *durable.Batch) (*durable.BatchResult, error) {
	if s.hangs.Load() {
		<-s.release
	}
	return s.Store.Commit(ctx, b)
}

// A loop that claims nothing any more is what a restart helps against.
func TestAProcessWhoseClaimLoopIsStuckIsNotAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, _ := newWorld()
		app.Tasks(noted)
		store := &hangingStore{Store: memory.New(memory.Config{}), release: make(chan struct{})}
		client := waketest.Start(t, app, waketest.Store(store), waketest.Workers())
		time.Sleep(time.Minute)
		expectStatus(t, client.Get("/livez"), http.StatusOK)
		expectStatus(t, client.Get("/readyz"), http.StatusOK)
		store.hangs.Store(true)
		time.Sleep(time.Minute)
		for _, path := range []string{"/livez", "/readyz"} {
			res := client.Get(path)
			expectStatus(t, res, http.StatusServiceUnavailable)
			if !strings.Contains(res.String(), "workers") {
				t.Errorf("%s: %v", path, res)
			}
		}
		store.hangs.Store(false)
		close(store.release)
		time.Sleep(time.Minute)
		expectStatus(t, client.Get("/livez"), http.StatusOK)
		expectStatus(t, client.Get("/readyz"), http.StatusOK)
	})
}
