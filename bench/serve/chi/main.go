// The program chi is a compared server, see package peer.
package main

import (
	"github.com/wake-go/wake/bench/peer"
	"github.com/wake-go/wake/bench/peer/chi"
)

func main() { peer.Main(chi.Start) }
