// The program bare is a compared server, see package peer.
package main

import (
	"github.com/wake-go/wake/bench/peer"
	"github.com/wake-go/wake/bench/peer/bare"
)

func main() { peer.Main(bare.Start) }
