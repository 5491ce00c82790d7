package lifespan

import (
	"bytes"
	"path"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
)

// maxStack bounds the stack of a StuckError: a goroutine can have thousands of
// children, and the first ones tell enough.
const maxStack = 64 << 10

// A routine is a goroutine running somebody else's function. It can be found
// in a dump of all goroutines.
type routine struct{ id atomic.Uint64 }

// start runs fn on a goroutine of its own and calls ended there with fn's
// result, whichever way fn ends.
func start(fn func() error, ended func(error)) *routine {
	r := &routine{}
	go func() {
		r.id.Store(goroutineID())
		err := ErrGoexit // stands if fn neither returns nor panics
		defer func() {
			if v := recover(); v != nil {
				err = &PanicError{Value: v, Stack: debug.Stack()}
			}
			ended(err)
		}()
		err = fn()
	}()
	return r
}

// protect calls fn and turns a panic into an error.
func protect(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return fn()
}

// stack returns the text of the routine's stack, followed by those of the
// goroutines it started and theirs: in a composition it is one of these that
// is stuck.
func (r *routine) stack() []byte {
	own := r.id.Load()
	if own == 0 {
		return nil // it has not begun to run
	}
	blocks := bytes.Split(dump(), []byte("\n\n"))
	parent := make(map[uint64]uint64, len(blocks))
	for _, b := range blocks {
		parent[headerID(b)] = idAfter(b, " in goroutine ")
	}
	var first, rest []byte
	for _, b := range blocks {
		id := headerID(b)
		if id == own {
			first = append(b[:len(b):len(b)], '\n')
			continue
		}
		for p := parent[id]; p != 0; p = parent[p] {
			if p == own && len(rest)+len(b) < maxStack {
				rest = append(append(append(rest, '\n'), b...), '\n')
			}
		}
	}
	return append(first, rest...)
}

// dump returns the stacks of all goroutines, or as many as fit in 16 MB.
func dump() []byte {
	for size := 64 << 10; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size || size >= 16<<20 {
			return buf[:n]
		}
	}
}

// goroutineID returns the number of the calling goroutine. Go gives no other
// way to tell one goroutine's stack from another's.
func goroutineID() uint64 {
	buf := make([]byte, 64)
	return headerID(buf[:runtime.Stack(buf, false)])
}

// headerID returns the number in the first line of a goroutine's stack.
func headerID(stack []byte) uint64 {
	header, _, _ := bytes.Cut(stack, []byte(" ["))
	return idAfter(header, "goroutine ")
}

// idAfter returns the number after the last prefix in text, or 0.
func idAfter(text []byte, prefix string) uint64 {
	i := bytes.LastIndex(text, []byte(prefix))
	if i < 0 {
		return 0
	}
	digits := text[i+len(prefix):]
	end := 0
	for end < len(digits) && digits[end] >= '0' && digits[end] <= '9' {
		end++
	}
	id, _ := strconv.ParseUint(string(digits[:end]), 10, 64)
	return id
}

// panicSite returns where the panic in a stack of debug.Stack came from.
func panicSite(stack []byte) string {
	text := string(stack)
	if i := strings.Index(text, "\npanic("); i >= 0 {
		text = text[i+1:]
	}
	return site(text, "panic(", "runtime.")
}

// stuckSite returns where the goroutines of a stack are stuck: the innermost
// frame of the first one that is not in the runtime or in this package.
func stuckSite(stack []byte) string {
	return site(string(stack), "runtime.", "internal/", "sync.", "time.")
}

// site returns the function and the line of the first frame of a stack that is
// not in this package, and whose function begins with none of the prefixes.
func site(text string, prefixes ...string) string {
	// By file: functions inlined from here are named after their callers.
	_, self, _, _ := runtime.Caller(0)
	lines := strings.Split(text, "\n")
	for i := 0; i+1 < len(lines); i++ {
		function, place := lines[i], lines[i+1]
		file, found := strings.CutPrefix(place, "\t")
		if !found || strings.HasPrefix(function, "created by ") {
			continue
		}
		own := path.Dir(file) == path.Dir(self) && !strings.Contains(file, "_test.go:")
		if own || hasAnyPrefix(function, prefixes) {
			continue
		}
		if j := strings.LastIndex(function, "("); j > 0 {
			function = function[:j]
		}
		file, _, _ = strings.Cut(file, " +0x")
		return path.Base(function) + ", " + path.Base(file)
	}
	return ""
}

func hasAnyPrefix(s string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}
