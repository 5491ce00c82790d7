// The program huma is a compared server, see package peer.
package main

import (
	"github.com/wake-go/wake/bench/peer"
	"github.com/wake-go/wake/bench/peer/huma"
)

func main() { peer.Main(huma.Start) }
