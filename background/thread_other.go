//go:build !linux

package background

// lowerThreadPriority does nothing: threads have no priorities of their own
// that Go could set here.
func lowerThreadPriority() error { return nil }

func threadPriorities() bool { return false }
