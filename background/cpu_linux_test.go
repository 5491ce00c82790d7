package background_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wake-go/wake/background"
)

// nice returns a thread's nice value.
func nice(t *testing.T, tid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", tid))
	if err != nil {
		t.Error(err)
		return ""
	}
	_, fields, _ := strings.Cut(string(stat), ") ") // the name may hold spaces
	return strings.Fields(fields)[16]
}

func TestCPUTasksRunOnThreadsOfTheLowestPriorityThatEndWithTheRunner(t *testing.T) {
	if !threadsHavePriorities(t) {
		t.Skip("threads have no priorities here: a sandbox forbids it, or /proc is missing")
	}
	mine := nice(t, syscall.Gettid())
	r := newRunner(t, background.Config{})
	tids := map[int]bool{}
	for range 20 {
		cpuTask(t, r, func() {
			tid := syscall.Gettid()
			tids[tid] = true
			if n := nice(t, tid); n != "19" {
				t.Errorf("nice %s", n)
			}
			runtime.Gosched()
			if syscall.Gettid() != tid {
				t.Error("the task moved to another thread")
			}
		})
	}
	r.Add(t.Context(), background.Task{Name: "goexit", Lane: background.CPULane, Run: func(context.Context) error {
		tids[syscall.Gettid()] = true
		runtime.Goexit()
		return nil
	}})
	if err := r.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	for tid := range tids {
		// The thread ends a moment after its goroutine; only the kernel knows when.
		gone := false
		for late := time.Now().Add(10 * time.Second); !gone && time.Now().Before(late); runtime.Gosched() {
			_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid))
			gone = os.IsNotExist(err)
		}
		if !gone {
			t.Errorf("thread %d, which has the lowest priority, goes on without its worker", tid)
		}
	}
	if got := nice(t, syscall.Gettid()); got != mine {
		t.Errorf("this thread's priority went from %s to %s", mine, got)
	}
}
