package lifespan

import (
	"fmt"
	"os"
	"time"
)

// A Phase of an application's life.
type Phase int

// The phases, in the order in which an application goes through them.
const (
	Starting Phase = iota // set-up runs, then serve opens its port
	Ready                 // MarkReady was called
	Draining              // a stop was asked for, serve finishes what it holds
	Cleaning              // serve has ended, parts stop, clean-up runs
	Stopped               // Run is about to return
)

// String returns "starting", "ready", "draining", "cleaning" or "stopped".
func (p Phase) String() string {
	switch p {
	case Starting:
		return "starting"
	case Ready:
		return "ready"
	case Draining:
		return "draining"
	case Cleaning:
		return "cleaning"
	case Stopped:
		return "stopped"
	}
	return fmt.Sprintf("Phase(%d)", int(p))
}

// An Event is something an operator may want to know: a [PhaseChanged],
// [SignalReceived], [DrainCut], [PartEnded] or [PhaseAbandoned]. String is a
// line for a log; a type switch gets at the details. No other package can add
// an event, later versions of this one can.
type Event interface {
	fmt.Stringer
	lifespanEvent()
}

// PhaseChanged is the beginning of the phase To. The first event of a Run is
// one with From and To both Starting, the last one has To == Stopped.
type PhaseChanged struct {
	From, To Phase
	At       time.Time
	// Cause says why, and can be nil: why a stop was asked for (Draining), the
	// error that set-up or serving ended with (Cleaning), what Run returns
	// (Stopped).
	Cause error
}

// SignalReceived is the arrival of one of Config.Signals.
type SignalReceived struct {
	Signal os.Signal
	Count  int // 1 for the first signal of this Run
}

// DrainCut is the end of a drain before serve had finished. Cause is
// ErrDrainTimeout or a *SignalError.
type DrainCut struct{ Cause error }

// PartEnded is the end of a part started with Go. Err is nil if it finished,
// or ended because it was told to.
type PartEnded struct {
	Name string
	Err  error
}

// PhaseAbandoned is a function that ignored its context and is left behind:
// set-up in Starting, serve in Draining, a part or clean-up in Cleaning.
type PhaseAbandoned struct {
	Phase Phase
	What  string        // "set-up", "serve", "clean-up", or `part "name"`
	After time.Duration // since its context was cancelled
	Stack []byte        // its goroutine and those it started, as text
}

func (PhaseChanged) lifespanEvent()   {}
func (SignalReceived) lifespanEvent() {}
func (DrainCut) lifespanEvent()       {}
func (PartEnded) lifespanEvent()      {}
func (PhaseAbandoned) lifespanEvent() {}

// String returns the new phase and its cause, if it has one.
func (e PhaseChanged) String() string {
	if e.Cause == nil {
		return e.To.String()
	}
	return fmt.Sprintf("%v (%v)", e.To, e.Cause)
}

// String returns the signal's name and number.
func (e SignalReceived) String() string {
	return fmt.Sprintf("signal %d received: %v", e.Count, e.Signal)
}

// String returns the cause.
func (e DrainCut) String() string { return fmt.Sprintf("drain cut short: %v", e.Cause) }

// String returns the part's name and error.
func (e PartEnded) String() string {
	if e.Err == nil {
		return fmt.Sprintf("part %q ended", e.Name)
	}
	return fmt.Sprintf("part %q failed: %v", e.Name, e.Err)
}

// String returns what is stuck, and where. The whole stack is in Stack.
func (e PhaseAbandoned) String() string {
	return fmt.Sprintf("%s is abandoned, for it ignored its context for %v%s", e.What, e.After, at(stuckSite(e.Stack)))
}
