package lifespan

// Exit codes of a process. A signal that ends it in good order is no failure:
// the code is 0.
const (
	ExitOK        = 0
	ExitServe     = 1 // serving failed, or an error that is not this package's
	ExitUsage     = 2 // wrong arguments; never returned by ExitCode
	ExitStart     = 3 // start-up failed or was interrupted
	ExitCleanup   = 4 // clean-up failed or passed its limit
	ExitAbandoned = 5 // work was abandoned, or a third signal ended the process
)

// ExitCode returns the exit code for an error that Run returned, possibly
// wrapped or joined with others. If several phases failed, the earliest of
// Starting, Ready, Draining, Cleaning counts. An error without an [Error] in
// it is ExitServe.
func ExitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	phase, ok := earliest(err)
	if !ok {
		return ExitServe
	}
	switch phase {
	case Starting:
		return ExitStart
	case Draining:
		return ExitAbandoned
	case Cleaning:
		return ExitCleanup
	}
	return ExitServe
}

// earliest returns the earliest phase of the Errors in err's tree. It does not
// look below an Error: what it wraps may be the Error of a Run inside.
func earliest(err error) (first Phase, ok bool) {
	switch e := err.(type) {
	case *Error:
		return e.Phase, true
	case interface{ Unwrap() error }:
		return earliest(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, part := range e.Unwrap() {
			if phase, found := earliest(part); found && (!ok || phase < first) {
				first, ok = phase, true
			}
		}
	}
	return first, ok
}
