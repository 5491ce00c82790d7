package lifespan

import (
	"fmt"
	"os"
	"time"
)

// Config sets the limits of a Run. The zero value is ready for use.
//
// An application that is asked to stop is gone, at the latest, after
// DrainTimeout + 2×Grace + 2×StopTimeout + Grace: drain, serve ignoring the
// cut, parts, clean-up, clean-up ignoring its context. Give a supervisor's
// kill timer more than that.
type Config struct {
	// StartTimeout is the limit for set-up, that is until yield is called.
	// Then the lifespan's context is cancelled with the cause ErrStartTimeout.
	// Defaults to 1 minute. Negative: no limit.
	StartTimeout time.Duration

	// DrainTimeout is the time from the moment a stop is asked for until the
	// contexts made by Drain end with the cause ErrDrainTimeout.
	// Defaults to 30 seconds. Negative: no limit.
	DrainTimeout time.Duration

	// StopTimeout is the limit for parts to end after serve has ended, all
	// together, and again for clean-up. Then the lifespan's context is
	// cancelled with the cause ErrStopTimeout.
	// Defaults to 10 seconds. Negative: no limit.
	StopTimeout time.Duration

	// Grace is how long set-up or clean-up may take to return once its context
	// was cancelled, before it is abandoned. Serve has twice as long after a
	// cut, so that it can itself wait one Grace for what it holds and report
	// the rest. A set-up that a composition unwinds has StopTimeout instead,
	// from the moment a part of it failed.
	// Defaults to 2 seconds; must not be negative.
	Grace time.Duration

	// Signals are those that stop the application, usually os.Interrupt and
	// syscall.SIGTERM. The first is an ordinary stop, and interrupts set-up.
	// The second, of whichever kind, cuts the drain short, and abandons a
	// set-up that has not returned yet. The third exits the process at once
	// with ExitAbandoned.
	// Defaults to none: a Run in a test does not listen for signals.
	Signals []os.Signal

	// OnEvent is called with each event, one at a time and in order, on the
	// goroutine that called Run. While it runs, nothing else moves on, so it
	// must not block; it may call Stop and Go, but not MarkReady. A panic in it
	// stops the application, as a failure of serving.
	// Defaults to none.
	OnEvent func(Event)
}

func (c *Config) setDefaults() {
	setDefault(&c.StartTimeout, time.Minute)
	setDefault(&c.DrainTimeout, 30*time.Second)
	setDefault(&c.StopTimeout, 10*time.Second)
	setDefault(&c.Grace, 2*time.Second)
	if c.OnEvent == nil {
		c.OnEvent = func(Event) {}
	}
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

func (c *Config) validate() error {
	if c.Grace < 0 {
		return fmt.Errorf("lifespan: Config.Grace is %v; use a positive duration, or 0 for 2s", c.Grace)
	}
	for i, s := range c.Signals {
		if s == nil {
			return fmt.Errorf("lifespan: Config.Signals[%d] is nil; use a signal such as os.Interrupt, or leave it out", i)
		}
	}
	return nil
}
