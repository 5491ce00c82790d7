package lifespan_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/wake-go/wake/lifespan"
)

func TestEventsAreLinesForALog(t *testing.T) {
	for want, e := range map[string]lifespan.Event{
		"ready":                         lifespan.PhaseChanged{To: lifespan.Ready},
		"draining (boom)":               lifespan.PhaseChanged{To: lifespan.Draining, Cause: errBoom},
		"signal 2 received: terminated": lifespan.SignalReceived{Signal: syscall.SIGTERM, Count: 2},
		"drain cut short: boom":         lifespan.DrainCut{Cause: errBoom},
		`part "cache" ended`:            lifespan.PartEnded{Name: "cache"},
		`part "cache" failed: boom`:     lifespan.PartEnded{Name: "cache", Err: errBoom},
		"serve is abandoned, for it ignored its context for 2s": lifespan.PhaseAbandoned{What: "serve", After: 2 * time.Second},
	} {
		if got := e.String(); got != want {
			t.Errorf("%T reads %q, want %q", e, got, want)
		}
	}
	if got, want := fmt.Sprint(lifespan.Cleaning, lifespan.Phase(9)), "cleaning Phase(9)"; got != want {
		t.Errorf("phases read %q, want %q", got, want)
	}
}
