package background_test

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/wake-go/wake/background"
)

// cpuTask runs f in the lane "cpu" and waits for it.
func cpuTask(t *testing.T, r *background.Runner, f func()) {
	t.Helper()
	done := make(chan struct{})
	err := r.Add(t.Context(), background.Task{Name: "computes", Lane: background.CPULane, Run: func(context.Context) error {
		defer close(done)
		f()
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	wait(t, done, "the task")
}

// busy makes the lane use all its workers and returns how many those are.
func busy(t *testing.T, r *background.Runner) (workers int, leave func()) {
	t.Helper()
	cpuTask(t, r, func() {})
	gate, in := make(chan struct{}), make(chan struct{})
	workers = laneStats(r, background.CPULane).Workers
	for range workers {
		err := r.Add(t.Context(), background.Task{Name: "computes", Lane: background.CPULane, Run: func(context.Context) error {
			in <- struct{}{}
			<-gate
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range workers {
		wait(t, in, "a worker")
	}
	return workers, func() { close(gate) }
}

func TestTheCPULaneGetsProcessorsOfItsOwnAndGivesThemBack(t *testing.T) {
	base := runtime.GOMAXPROCS(0)
	first, second := newRunner(t, background.Config{}), newRunner(t, background.Config{Lanes: map[string]background.Lane{
		background.CPULane: {Running: 3, Threads: true},
	}})
	if n := runtime.GOMAXPROCS(0); n != base {
		t.Errorf("a lane that is not used changed GOMAXPROCS from %d to %d", base, n)
	}
	n1, leave1 := busy(t, first)
	if !threadsHavePriorities(t) {
		leave1()
		if n1 != max(1, base-1) || runtime.GOMAXPROCS(0) != base {
			t.Errorf("%d workers and GOMAXPROCS %d", n1, runtime.GOMAXPROCS(0))
		}
		return
	}
	if n := runtime.GOMAXPROCS(0); n != base+n1 || n1 < 1 {
		t.Errorf("GOMAXPROCS is %d with %d workers on %d", n, n1, base)
	}
	n2, leave2 := busy(t, second)
	if n := runtime.GOMAXPROCS(0); n2 != 3 || n != base+n1+n2 {
		t.Errorf("GOMAXPROCS is %d with %d and %d workers on %d", n, n1, n2, base)
	}
	leave1()
	if err := first.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if n := runtime.GOMAXPROCS(0); n != base+n2 {
		t.Errorf("GOMAXPROCS is %d with %d workers on %d", n, n2, base)
	}
	leave2()
	if err := second.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if n := runtime.GOMAXPROCS(0); n != base {
		t.Errorf("GOMAXPROCS is %d, was %d", n, base)
	}
}

// threadsHavePriorities tells, in its own way, where the lane can have threads.
func threadsHavePriorities(t *testing.T) bool {
	t.Helper()
	if runtime.GOOS != "linux" {
		return false
	}
	_, err := os.Stat("/proc/self/task")
	return err == nil && exec.Command("nice", "-n", "19", "true").Run() == nil
}

func TestGOMAXPROCSSetByTheProgramIsKept(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	defer runtime.SetDefaultGOMAXPROCS()
	own := before + 3
	runtime.GOMAXPROCS(own)
	r := newRunner(t, background.Config{})
	cpuTask(t, r, func() {})
	if n := laneStats(r, background.CPULane).Workers; threadsHavePriorities(t) && runtime.GOMAXPROCS(0) != own+n {
		t.Errorf("GOMAXPROCS is %d with %d workers on %d", runtime.GOMAXPROCS(0), n, own)
	}
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if n := runtime.GOMAXPROCS(0); n != own {
		t.Errorf("GOMAXPROCS is %d, was set to %d", n, own)
	}
}

func TestGOMAXPROCSSetWhileTheLaneWorksIsKept(t *testing.T) {
	defer runtime.SetDefaultGOMAXPROCS()
	r := newRunner(t, background.Config{})
	cpuTask(t, r, func() {})
	own := runtime.GOMAXPROCS(0) + 3
	runtime.GOMAXPROCS(own)
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if n := runtime.GOMAXPROCS(0); n != own {
		t.Errorf("GOMAXPROCS is %d, was set to %d", n, own)
	}
}

// The variable is read when a program starts, so a program is started.
func TestGOMAXPROCSFromTheEnvironmentIsKept(t *testing.T) {
	if os.Getenv("GOMAXPROCS") == "3" {
		r := newRunner(t, background.Config{})
		cpuTask(t, r, func() {})
		if n := laneStats(r, background.CPULane).Workers; threadsHavePriorities(t) && runtime.GOMAXPROCS(0) != 3+n {
			t.Errorf("GOMAXPROCS is %d with %d workers", runtime.GOMAXPROCS(0), n)
		}
		if err := r.Drain(t.Context()); err != nil || runtime.GOMAXPROCS(0) != 3 {
			t.Errorf("GOMAXPROCS is %d: %v", runtime.GOMAXPROCS(0), err)
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=3")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestALaneWithoutThreadsLeavesGOMAXPROCSAlone(t *testing.T) {
	base := runtime.GOMAXPROCS(0)
	r := newRunner(t, background.Config{Lanes: ordinary(2, 10)})
	n, leave := busy(t, r)
	defer leave()
	if n != 2 || runtime.GOMAXPROCS(0) != base {
		t.Errorf("%d workers, GOMAXPROCS %d", n, runtime.GOMAXPROCS(0))
	}
}

func TestTheLaneIsSizedBeforeItIsUsed(t *testing.T) {
	r := newRunner(t, background.Config{Lanes: map[string]background.Lane{background.CPULane: {Waiting: 1, Threads: true}}})
	before := laneStats(r, background.CPULane)
	cpuTask(t, r, func() {})
	after := laneStats(r, background.CPULane)
	if before.Workers < 1 || before.Capacity != before.Workers+1 || threadsHavePriorities(t) && after.Capacity != before.Capacity {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func TestRequestsGoOnWhileTheLaneIsFull(t *testing.T) {
	r := newRunner(t, background.Config{})
	workers, leave := busy(t, r)
	log := &ledger{}
	for range 2 * workers {
		serve(t, r, func(w http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).AddTask(log.task("waits for no processor"))
		})
	}
	if n := len(log.all()); n != 2*workers {
		t.Errorf("%d tasks ran", n)
	}
	leave()
}
