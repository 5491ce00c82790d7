package durable_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// before is a task that has begun twice, was in two crashes and claimed five
// times.
func before(s durable.State) durable.Status {
	return durable.Status{State: s, Attempt: 2, Crashes: 2, Fence: 5, RunAt: epoch.Add(-time.Hour)}
}

// TestAdvance has every move that there is. Each other pair of a state and a
// move is refused.
func TestAdvance(t *testing.T) {
	const wait = 7 * time.Minute
	type pair struct {
		state durable.State
		move  durable.Move
	}
	type result struct {
		state                   durable.State
		attempt, crashes, fence int
		runAt                   time.Duration // from now; minus one hour: as it was
	}
	const asItWas = -time.Hour
	moves := map[pair]result{
		{durable.Scheduled, durable.MovePromote}: {durable.Ready, 2, 2, 5, asItWas},
		{durable.Ready, durable.MoveClaim}:       {durable.Running, 3, 2, 6, asItWas},
		{durable.Running, durable.MoveSucceed}:   {durable.Succeeded, 2, 2, 5, asItWas},
		{durable.Running, durable.MoveFail}:      {durable.Scheduled, 2, 2, 5, wait},
		{durable.Running, durable.MoveExhaust}:   {durable.Dead, 2, 2, 5, asItWas},
		{durable.Running, durable.MoveSnooze}:    {durable.Scheduled, 1, 2, 5, wait},
		{durable.Running, durable.MoveRelease}:   {durable.Ready, 1, 2, 5, asItWas},
		{durable.Running, durable.MoveCrash}:     {durable.Dead, 1, 3, 5, asItWas},
		{durable.Ready, durable.MoveCancel}:      {durable.Cancelled, 2, 2, 5, asItWas},
		{durable.Running, durable.MoveCancel}:    {durable.Cancelled, 2, 2, 5, asItWas},
		{durable.Scheduled, durable.MoveCancel}:  {durable.Cancelled, 2, 2, 5, asItWas},
		{durable.Held, durable.MoveCancel}:       {durable.Cancelled, 2, 2, 5, asItWas},
		{durable.Blocked, durable.MoveCancel}:    {durable.Cancelled, 2, 2, 5, asItWas},
		{durable.Scheduled, durable.MoveRetry}:   {durable.Ready, 2, 2, 5, 0},
		{durable.Dead, durable.MoveRetry}:        {durable.Ready, 0, 0, 5, 0},
		{durable.Cancelled, durable.MoveRetry}:   {durable.Ready, 0, 0, 5, 0},
	}
	for s := durable.State(0); s <= durable.Cancelled+1; s++ {
		for m := durable.Move(0); m <= durable.MoveRetry+1; m++ {
			t.Run(fmt.Sprintf("%v %v", s, m), func(t *testing.T) {
				was := before(s)
				got, err := durable.Advance(was, m, epoch, wait)
				want, ok := moves[pair{s, m}]
				if !ok {
					if !errors.Is(err, durable.ErrState) || got != was {
						t.Fatalf("got %+v, %v; want the status as it was, and an error that matches ErrState", got, err)
					}
					return
				}
				status := durable.Status{
					State: want.state, Attempt: want.attempt, Crashes: want.crashes, Fence: int64(want.fence), RunAt: epoch.Add(want.runAt),
				}
				if err != nil || got != status {
					t.Fatalf("got %+v, %v; want %+v", got, err, status)
				}
			})
		}
	}
}

func TestAdvanceWithoutDelay(t *testing.T) {
	for m, attempt := range map[durable.Move]int{durable.MoveFail: 2, durable.MoveSnooze: 1} {
		for _, delay := range []time.Duration{0, -time.Second} {
			got, err := durable.Advance(before(durable.Running), m, epoch, delay)
			want := durable.Status{State: durable.Ready, Attempt: attempt, Crashes: 2, Fence: 5, RunAt: epoch}
			if err != nil || got != want {
				t.Errorf("%v after %v: got %+v, %v; want %+v", m, delay, got, err, want)
			}
		}
	}
}

// TestAdvanceCrashes: it is the third crash that parks a task, and they cost
// no attempts.
func TestAdvanceCrashes(t *testing.T) {
	s := durable.Status{State: durable.Ready}
	for i := 1; i <= durable.MaxCrashes; i++ {
		for _, m := range []durable.Move{durable.MoveClaim, durable.MoveCrash} {
			var err error
			if s, err = durable.Advance(s, m, epoch, 0); err != nil {
				t.Fatal(err)
			}
		}
		want := durable.Status{State: durable.Ready, Crashes: i, Fence: int64(i)}
		if i == durable.MaxCrashes {
			want.State = durable.Dead
		}
		if s != want {
			t.Fatalf("after crash %d: %+v, want %+v", i, s, want)
		}
	}
}

func TestStateNames(t *testing.T) {
	for s := durable.Ready; s <= durable.Cancelled; s++ {
		parsed, err := durable.ParseState(s.String())
		if err != nil || parsed != s {
			t.Errorf("ParseState(%q) = %v, %v", s, parsed, err)
		}
		b, err := json.Marshal(s)
		var back durable.State
		if err != nil || json.Unmarshal(b, &back) != nil || back != s {
			t.Errorf("%v in JSON is %s (%v) and comes back as %v", s, b, err, back)
		}
		if finished := s >= durable.Succeeded; s.Finished() != finished {
			t.Errorf("%v.Finished() = %v", s, !finished)
		}
	}
	for _, name := range []string{"", "Ready", "state(0)", "done"} {
		if s, err := durable.ParseState(name); err == nil {
			t.Errorf("ParseState(%q) = %v", name, s)
		}
	}
	for s, want := range map[fmt.Stringer]string{
		durable.State(0): "state(0)", durable.State(99): "state(99)", durable.Move(0): "move(0)", durable.Move(99): "move(99)",
		durable.MoveRetry: "retry", durable.MovePromote: "promote",
	} {
		if s.String() != want {
			t.Errorf("got %q, want %q", s, want)
		}
	}
}
