package durable

import (
	"fmt"
	"runtime"
	"strings"
	"time"
)

// An AbandonedTask is a task whose handler ignored the end of its context.
type AbandonedTask struct {
	Info
	Age   time.Duration // since it began
	Stack string        // of its goroutine
}

func (t AbandonedTask) String() string {
	return fmt.Sprintf("%q (task %v, %v old, still running: it ignores its context)", t.Kind, t.ID, t.Age.Round(time.Millisecond))
}

// An AbandonedError is the error of a drain that has left goroutines behind.
// Their tasks are in the queue again.
type AbandonedError struct {
	Cause error // why the drain was cut short
	Tasks []AbandonedTask
}

func (e *AbandonedError) Error() string {
	const most = 20
	names := make([]string, 0, min(len(e.Tasks), most)+1)
	for i, t := range e.Tasks {
		if i == most {
			names = append(names, fmt.Sprintf("and %d more", len(e.Tasks)-most))
			break
		}
		names = append(names, t.String())
	}
	return fmt.Sprintf("durable: %d tasks abandoned: %s", len(e.Tasks), strings.Join(names, "; "))
}

// Unwrap returns the drain's cause.
func (e *AbandonedError) Unwrap() error { return e.Cause }

// goroutineID returns the number by which stacks name the goroutine.
func goroutineID() string {
	var buf [64]byte
	s := string(buf[:runtime.Stack(buf[:], false)])
	id, _, _ := strings.Cut(strings.TrimPrefix(s, "goroutine "), " ")
	return id
}

// goroutineStacks returns the stacks of all goroutines by number.
func goroutineStacks() map[string]string {
	const most = 16 << 20
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) || len(buf) >= most {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	stacks := map[string]string{}
	for s := range strings.SplitSeq(string(buf), "\n\n") {
		if id, _, ok := strings.Cut(strings.TrimPrefix(s, "goroutine "), " "); ok {
			stacks[id] = s
		}
	}
	return stacks
}
