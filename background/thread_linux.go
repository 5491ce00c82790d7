package background

import (
	"runtime"
	"syscall"
)

// lowest is the nice value of a thread that should run only when no other
// wants to.
const lowest = 19

// lowerThreadPriority gives the calling goroutine's thread the lowest
// priority. The goroutine must be locked to it and end that way.
func lowerThreadPriority() error {
	return syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), lowest)
}

// threadPriorities reports whether a thread's priority can be lowered here: a
// sandbox may forbid it. It tries on a thread that ends right after.
func threadPriorities() bool {
	ok := make(chan bool)
	go func() {
		runtime.LockOSThread()
		ok <- lowerThreadPriority() == nil
	}()
	return <-ok
}
