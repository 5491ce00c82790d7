package lifespan

import (
	"os"
	"os/signal"
	"time"
)

// lastWord is how long the third signal waits for Config.OnEvent to hear of
// it before the process exits.
const lastWord = 100 * time.Millisecond

// watchSignals counts signals on a goroutine of its own, so that the third one
// ends the process also when the loop hangs in an event handler. The function
// it returns ends that goroutine and waits for it.
func (a *app) watchSignals() (stop func()) {
	if len(a.cfg.Signals) == 0 {
		return func() {}
	}
	signals := make(chan os.Signal, 8)
	quit, done := make(chan struct{}), make(chan struct{})
	signal.Notify(signals, a.cfg.Signals...)
	go func() {
		defer close(done)
		for count := 1; ; count++ {
			select {
			case <-quit:
				return
			case s := <-signals:
				a.passOn(&SignalError{s, count})
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(quit)
		<-done
	}
}

func (a *app) passOn(cause *SignalError) {
	if cause.Count < 3 {
		a.box.put(func() { a.signalled(cause) })
		return
	}
	told := make(chan struct{})
	a.box.put(func() { a.emit(SignalReceived{cause.Signal, cause.Count}); close(told) })
	select {
	case <-told:
	case <-time.After(lastWord):
	}
	os.Exit(ExitAbandoned)
}
