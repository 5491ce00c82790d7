package background

import "testing"

// A quota cannot be set from inside a process, so the decision is tested by
// itself: Go's default GOMAXPROCS is below the processors' number under one.
func TestWorkersFor(t *testing.T) {
	for _, c := range []struct{ procs, cpus, want int }{
		{1, 1, 1}, {2, 2, 2}, {8, 8, 8}, // no quota
		{1, 2, 1}, {2, 8, 1}, {4, 8, 3}, {7, 8, 6}, // a quota
		{16, 8, 16}, // set by the program
	} {
		if got := workersFor(c.procs, c.cpus); got != c.want {
			t.Errorf("workersFor(%d, %d) = %d, want %d", c.procs, c.cpus, got, c.want)
		}
	}
}
