package load

import (
	"syscall"
	"time"
)

// sleepUntil sleeps in the kernel: Go's timers are late by up to a
// millisecond in a process that has nothing else to do, which is more than an
// answer takes.
func sleepUntil(t time.Time) {
	for d := time.Until(t); d > 0; d = time.Until(t) {
		ts := syscall.NsecToTimespec(int64(d))
		_ = syscall.Nanosleep(&ts, nil)
	}
}
