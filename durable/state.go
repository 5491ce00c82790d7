package durable

import (
	"fmt"
	"time"
)

// A State says where a task is on its way. docs/architecture.md draws the
// moves between states as a table; [Advance] makes them.
type State uint8

// The states of a task. The first five are unfinished: such a task holds its
// key. Stores keep these numbers.
const (
	Ready     State = 1 // waits for a worker
	Running   State = 2 // a worker has claimed it
	Scheduled State = 3 // becomes ready at its time: a delayed one, a retry, a snooze
	Held      State = 4 // waits for a limit; not used yet
	Blocked   State = 5 // waits for other tasks; not used yet
	Succeeded State = 6 // finished without an error
	Dead      State = 7 // given up: attempts exhausted, or crashes; see its errors
	Cancelled State = 8 // by somebody
)

var stateNames = [...]string{"", "ready", "running", "scheduled", "held", "blocked", "succeeded", "dead", "cancelled"}

// String returns the state's name, as in "ready".
func (s State) String() string {
	if s == 0 || int(s) >= len(stateNames) {
		return fmt.Sprintf("state(%d)", s)
	}
	return stateNames[s]
}

// ParseState reads what [State.String] writes.
func ParseState(name string) (State, error) {
	for s := Ready; s <= Cancelled; s++ {
		if name == s.String() {
			return s, nil
		}
	}
	return 0, fmt.Errorf("durable: %q is not a state; there are %q", shortened(name, 64), stateNames[1:])
}

// MarshalText makes a state its name in JSON.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a state.
func (s *State) UnmarshalText(text []byte) error {
	parsed, err := ParseState(string(text))
	if err == nil {
		*s = parsed
	}
	return err
}

// Finished reports whether a task in this state will not run again by itself.
func (s State) Finished() bool { return s >= Succeeded }

// A Move is what can happen to a task.
type Move uint8

// The moves of tasks. Stores keep none of these numbers.
const (
	MovePromote Move = 1 + iota // its time has come
	MoveClaim                   // a worker takes it
	MoveSucceed                 // its handler returned no error
	MoveFail                    // its handler failed, and may be tried again
	MoveExhaust                 // its handler failed for the last time
	MoveSnooze                  // its handler wants to run later, which is no failure
	MoveRelease                 // its worker stops before it has ended; costs nothing
	MoveCrash                   // its worker's process died
	MoveCancel                  // somebody cancels it; a running one when its handler has returned
	MoveRetry                   // somebody wants a finished one run again
)

var moveNames = [...]string{"", "promote", "claim", "succeed", "fail", "exhaust", "snooze", "release", "crash", "cancel", "retry"}

// String returns the move's name.
func (m Move) String() string {
	if m == 0 || int(m) >= len(moveNames) {
		return fmt.Sprintf("move(%d)", m)
	}
	return moveNames[m]
}

// Status is the part of a task that moves change.
type Status struct {
	State   State
	Attempt int   // attempts begun, without those that were snoozed, released or ended by a crash
	Crashes int   // processes that died running it
	Fence   int64 // claims so far: tells one claim from every other
	RunAt   time.Time
}

// MaxCrashes is how many processes may die running a task before it is taken
// for their killer and parked as dead.
const MaxCrashes = 3

// Suspect reports whether a task with so many crashes is parked with the next
// one. Such tasks run one at a time in a process.
func Suspect(crashes int) bool { return crashes >= MaxCrashes-1 }

// Advance makes a move: it is the one place that knows which moves there are
// and what they change. Now is the store's time; delay is how long a failed or
// snoozed task waits, and with none it is ready at once. These are the moves:
//
//	promote  scheduled               → ready
//	claim    ready                   → running                attempt + 1, fence + 1
//	succeed  running                 → succeeded
//	fail     running                 → scheduled, ready
//	exhaust  running                 → dead
//	snooze   running                 → scheduled, ready       attempt - 1
//	release  running                 → ready                  attempt - 1
//	crash    running                 → ready, dead            attempt - 1, crashes + 1
//	cancel   any that is unfinished  → cancelled
//	retry    scheduled               → ready
//	retry    dead, cancelled         → ready                  attempt = crashes = 0
//
// Every other move is an error that matches [ErrState], with the status as it
// was. RunAt becomes now plus the delay with fail and snooze, and now with
// retry. The fence only ever grows.
func Advance(s Status, m Move, now time.Time, delay time.Duration) (Status, error) {
	wait := func() {
		s.State, s.RunAt = Ready, now
		if delay > 0 {
			s.State, s.RunAt = Scheduled, now.Add(delay)
		}
	}
	switch from := s.State; {
	case m == MovePromote && from == Scheduled:
		s.State = Ready
	case m == MoveClaim && from == Ready:
		s.State, s.Attempt, s.Fence = Running, s.Attempt+1, s.Fence+1
	case m == MoveSucceed && from == Running:
		s.State = Succeeded
	case m == MoveFail && from == Running:
		wait()
	case m == MoveExhaust && from == Running:
		s.State = Dead
	case m == MoveSnooze && from == Running:
		s.Attempt--
		wait()
	case m == MoveRelease && from == Running:
		s.Attempt--
		s.State = Ready
	case m == MoveCrash && from == Running:
		s.Attempt--
		s.Crashes++
		s.State = Ready
		if s.Crashes >= MaxCrashes {
			s.State = Dead
		}
	case m == MoveCancel && from >= Ready && !from.Finished():
		s.State = Cancelled
	case m == MoveRetry && (from == Dead || from == Cancelled || from == Scheduled):
		s.State, s.RunAt = Ready, now
		if from != Scheduled {
			s.Attempt, s.Crashes = 0, 0
		}
	default:
		return s, fmt.Errorf("durable: a task that is %v cannot %v: %w", from, m, ErrState)
	}
	return s, nil
}
