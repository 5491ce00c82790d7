package background

import (
	"os"
	"runtime"
	"sync"
	"time"
)

// quotaInterval is how often a lane with threads looks whether the processors
// that the process may use have changed.
const quotaInterval = 30 * time.Second

// startThreads sizes a lane whose workers own threads, when it is first used.
func (l *lane) startThreads() {
	if !threadPriorities() {
		l.mu.Lock()
		l.threads = false
		l.mu.Unlock()
		if l.chosen == 0 {
			l.running.Store(int64(max(1, runtime.GOMAXPROCS(0)-1)))
		}
		return
	}
	l.resize(processors.join(l))
	if !l.runner.help(l.followProcessors) {
		processors.leave(l) // a drain has given up on the list that comes here
	}
}

func (l *lane) followProcessors() {
	defer processors.leave(l)
	tick := time.NewTicker(quotaInterval)
	defer tick.Stop()
	for {
		select {
		case <-l.runner.ended:
			return
		case <-tick.C:
			l.resize(processors.refresh(l))
		}
	}
}

// processors shares the one GOMAXPROCS of the process among the lanes that
// raise it. It is package-level because what it guards belongs to the process.
var processors sharedProcessors

type sharedProcessors struct {
	mu    sync.Mutex
	base  int  // GOMAXPROCS without the lanes
	set   int  // GOMAXPROCS with them
	own   bool // somebody has set it: the quota is not ours to follow then
	lanes map[*lane]int
}

// join adds a lane and returns how many workers it is to have.
func (s *sharedProcessors) join(l *lane) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lanes) == 0 {
		s.lanes = map[*lane]int{}
		s.base = runtime.GOMAXPROCS(0)
		runtime.SetDefaultGOMAXPROCS()
		s.own = os.Getenv("GOMAXPROCS") != "" || runtime.GOMAXPROCS(0) != s.base
	} else {
		s.notice()
	}
	s.lanes[l] = 0
	s.apply()
	return s.lanes[l]
}

// refresh looks at the processors again and returns how many workers the lane
// is to have.
func (s *sharedProcessors) refresh(l *lane) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notice()
	if !s.own {
		runtime.SetDefaultGOMAXPROCS() // which reads the affinity and the quota
		s.base = runtime.GOMAXPROCS(0)
	}
	s.apply()
	return s.lanes[l]
}

func (s *sharedProcessors) leave(l *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notice()
	delete(s.lanes, l)
	if len(s.lanes) == 0 && !s.own {
		runtime.SetDefaultGOMAXPROCS() // Go follows the quota by itself again
		return
	}
	s.apply()
}

// notice sees that the program has set GOMAXPROCS while lanes were at work.
func (s *sharedProcessors) notice() {
	if n := runtime.GOMAXPROCS(0); n != s.set {
		s.base, s.own = n, true
	}
}

// apply sizes the lanes and gives Go a processor for each of their workers.
func (s *sharedProcessors) apply() {
	s.set = s.base
	for l := range s.lanes {
		workers := l.chosen
		if workers == 0 {
			workers = workersFor(s.base, runtime.NumCPU())
		}
		s.lanes[l] = workers
		s.set += workers
	}
	runtime.GOMAXPROCS(s.set)
}

// workersFor returns how many threads compute where Go uses procs of cpus
// processors: one each, and one fewer under a quota, where the process's
// threads are stopped together once they have used it up.
func workersFor(procs, cpus int) int {
	if procs < cpus {
		return max(1, procs-1)
	}
	return procs
}
