// The program wake is a compared server, see package peer.
package main

import (
	"github.com/wake-go/wake/bench/peer"
	"github.com/wake-go/wake/bench/peer/wakeapp"
)

func main() { peer.Main(wakeapp.Start) }
