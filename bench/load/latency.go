package load

import (
	"slices"
	"time"
)

// Latencies are how long requests took.
type Latencies []time.Duration

func (l Latencies) sort() { slices.Sort(l) }

// At returns the latency that a share of the requests did not exceed.
func (l Latencies) At(share float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	return l[min(len(l)-1, int(share*float64(len(l))))]
}
