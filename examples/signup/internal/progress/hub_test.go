package progress_test

import (
	"encoding/json"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wake-go/wake/examples/signup/internal/progress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func subscribe(t *testing.T, hub *progress.Hub) *progress.Subscription {
	t.Helper()
	s, err := hub.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// publish publishes events with the details first to last.
func publish(hub *progress.Hub, first, last int) {
	for i := first; i <= last; i++ {
		hub.Publish("ada", "send_welcome_email", progress.Running, strconv.Itoa(i), time.Now())
	}
}

func details(s *progress.Subscription) []int {
	var got []int
	for event := range s.Events {
		i, _ := strconv.Atoi(event.Detail)
		got = append(got, i)
	}
	return got
}

func TestReplayThenLive(t *testing.T) {
	t.Parallel()
	hub := progress.NewHub()
	publish(hub, 1, 250)
	s := subscribe(t, hub)
	publish(hub, 251, 260)
	hub.Close()
	got := details(s)
	if len(got) != 210 || got[0] != 51 || got[209] != 260 {
		t.Errorf("%d events from %d to %d, want the latest 200 and then 10 live ones", len(got), got[0], got[len(got)-1])
	}
}

func TestSlowSubscriberLosesTheOldest(t *testing.T) {
	t.Parallel()
	hub := progress.NewHub()
	slow := subscribe(t, hub)
	publish(hub, 1, 1000)
	hub.Close()
	got := details(slow)
	if len(got) != 256 || got[0] != 745 || got[255] != 1000 {
		t.Errorf("%d events from %d to %d, want the newest 256", len(got), got[0], got[len(got)-1])
	}
}

func TestEventsStayInOrder(t *testing.T) {
	t.Parallel()
	hub := progress.NewHub()
	var wg sync.WaitGroup
	for range 4 {
		s := subscribe(t, hub)
		wg.Go(func() {
			got := details(s)
			for i := 1; i < len(got); i++ {
				if got[i] <= got[i-1] {
					t.Errorf("%d after %d", got[i], got[i-1])
				}
			}
			if len(got) == 0 || got[len(got)-1] != 5000 {
				t.Error("the last event is missing")
			}
		})
	}
	publish(hub, 1, 5000)
	hub.Close()
	wg.Wait()
}

func TestCloseTwiceAndWhilePublishing(t *testing.T) {
	t.Parallel()
	hub := progress.NewHub()
	var wg sync.WaitGroup
	wg.Go(func() { publish(hub, 1, 2000) })
	for range 8 {
		wg.Go(func() {
			s, err := hub.Subscribe()
			if err != nil {
				t.Error(err)
				return
			}
			s.Close()
			s.Close()
		})
	}
	wg.Wait()
	hub.Close()
	hub.Close()
	publish(hub, 1, 1)
	if _, err := hub.Subscribe(); !errors.Is(err, progress.ErrClosed) {
		t.Errorf("Subscribe after Close = %v, want ErrClosed", err)
	}
}

func TestSubscribersAreBounded(t *testing.T) {
	t.Parallel()
	hub := progress.NewHub()
	defer hub.Close()
	first := subscribe(t, hub)
	for range 499 {
		subscribe(t, hub)
	}
	if _, err := hub.Subscribe(); !errors.Is(err, progress.ErrTooMany) {
		t.Errorf("subscriber 501: %v, want ErrTooMany", err)
	}
	first.Close()
	if _, err := hub.Subscribe(); err != nil {
		t.Errorf("after one left: %v", err)
	}
}

func TestEventAsJSON(t *testing.T) {
	t.Parallel()
	hub := progress.NewHub()
	defer hub.Close()
	at := time.Date(2026, 7, 1, 14, 0, 0, 5000, time.FixedZone("CEST", 7200))
	hub.Publish("ada", "update_crm", progress.Done, "added", at)
	got, err := json.Marshal(<-subscribe(t, hub).Events)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"username":"ada","step":"update_crm","state":"done","detail":"added","at":"2026-07-01T12:00:00.000005Z"}`
	if string(got) != want {
		t.Errorf("event = %s, want %s", got, want)
	}
}
