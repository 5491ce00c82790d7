package durable

import (
	"maps"
	"math"
	"slices"
)

// slots are the places of running tasks: each belongs to a queue and to a
// lane. A place is taken when a task is claimed, or may be, and free again
// when the outcome is committed. The engine's lock guards them.
type slots struct {
	queues map[string]*pool
	lanes  map[string]*pool
	groups []*group
	lookup map[groupKey]*group
	first  int // group that is served first, changing so that none starves
}

type groupKey struct{ queue, lane string }

// A pool counts places.
type pool struct {
	name       string
	size, free int
	running    int
	lent       int // see offer
}

const unbounded = math.MaxInt / 2

func (p *pool) unbounded() bool { return p.size == unbounded }

// A group is what is claimed together: the kinds of a lane in a queue.
type group struct {
	key   groupKey
	queue *pool
	lane  *pool
	kinds []string
	dry   bool   // the last claim has found no more
	fed   uint64 // changes when there may be more
}

// An offer is the claim of a group in a commit.
type offer struct {
	group *group
	limit int
	fed   uint64
	got   int
}

func newSlots(c EngineConfig, handlers map[string]*Handler) *slots {
	s := &slots{queues: map[string]*pool{}, lanes: map[string]*pool{}, lookup: map[groupKey]*group{}}
	for name, n := range c.Queues {
		s.queues[name] = &pool{name: name, size: n, free: n}
	}
	kinds := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(handlers)) {
		lane := handlers[name].Policy.Lane
		kinds[lane] = append(kinds[lane], name)
	}
	for lane := range kinds {
		n := unbounded
		if lane != "" {
			n = c.Lanes[lane].Workers
		}
		s.lanes[lane] = &pool{name: lane, size: n, free: n}
	}
	for _, queue := range slices.Sorted(maps.Keys(s.queues)) {
		for _, lane := range slices.Sorted(maps.Keys(s.lanes)) {
			g := &group{key: groupKey{queue, lane}, queue: s.queues[queue], lane: s.lanes[lane], kinds: kinds[lane]}
			s.groups = append(s.groups, g)
			s.lookup[g.key] = g
		}
	}
	return s
}

// feed says that a group may have ready tasks.
func (g *group) feed() {
	g.dry = false
	g.fed++
}

func (s *slots) feedAll() {
	for _, g := range s.groups {
		g.feed()
	}
}

// offer makes claims of all free places that may find tasks. The places of
// outcomes in the same commit count as free for it alone: if it fails, so do
// its claims. Calm claims leave suspects out.
func (s *slots) offer(c *commit, calm bool) {
	for _, r := range c.outcomes {
		r.group.queue.lent++
		r.group.lane.lent++
	}
	for i := range s.groups {
		g := s.groups[(s.first+i)%len(s.groups)]
		limit := min(g.queue.free+g.queue.lent, g.lane.free+g.lane.lent)
		if g.dry || limit <= 0 {
			continue
		}
		g.queue.free -= limit
		g.lane.free -= limit
		c.offers = append(c.offers, offer{group: g, limit: limit, fed: g.fed})
		c.batch.Claims = append(c.batch.Claims, Claim{Queue: g.key.queue, Kinds: g.kinds, Limit: limit, Calm: calm})
	}
	if len(c.offers) > 0 {
		s.first++
	}
	for _, r := range c.outcomes {
		r.group.queue.lent = 0
		r.group.lane.lent = 0
	}
}

// settle gives back what was offered and not used. Failed says that nothing is
// known of what could have been claimed.
func (s *slots) settle(c *commit, failed bool) {
	for _, o := range c.offers {
		o.group.queue.free += o.limit - o.got
		o.group.lane.free += o.limit - o.got
		if !failed && o.got < o.limit && o.group.fed == o.fed {
			o.group.dry = true
		}
	}
}

// take turns one place of an offer into that of a run.
func (o *offer) take() {
	o.got++
	o.group.queue.running++
	o.group.lane.running++
}

// release frees the place of a run.
func (s *slots) release(g *group) {
	g.queue.free++
	g.queue.running--
	g.lane.free++
	g.lane.running--
}

// full reports whether running tasks have all places of all groups.
func (s *slots) full() bool {
	for _, g := range s.groups {
		if g.queue.running < g.queue.size && g.lane.running < g.lane.size {
			return false
		}
	}
	return true
}
