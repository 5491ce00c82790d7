package wake

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// inheritedListeners are the sockets that systemd has opened for the program.
func inheritedListeners() ([]net.Listener, error) {
	all, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("take over the sockets of systemd: %w", err)
	}
	var listeners []net.Listener
	for _, l := range all {
		if l != nil { // a socket that is no stream
			listeners = append(listeners, l)
		}
	}
	return listeners, nil
}

// notify tells systemd, if the program runs under it, of its state.
func (s *server) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.in.cfg.log().Warn("systemd was not told", "state", state, "error", err)
	}
}

// startWatchdog tells systemd that the program is alive, twice in the interval
// that it asks for, and returns a function that ends that.
func (s *server) startWatchdog() (stop func()) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.in.cfg.log().Warn("systemd's watchdog is not served", "error", err)
	}
	if err != nil || interval <= 0 {
		return func() {}
	}
	end := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(interval / 2)
		defer tick.Stop()
		for {
			s.notify("WATCHDOG=1")
			select {
			case <-end:
				return
			case <-tick.C:
			}
		}
	})
	return func() {
		close(end)
		running.Wait()
	}
}
