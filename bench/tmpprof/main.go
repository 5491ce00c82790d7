package main

import (
	"net"
	"net/http"
	"os"
	"runtime/pprof"
	"time"

	"github.com/wake-go/wake/bench/peer"
	"github.com/wake-go/wake/bench/peer/bare"
	"github.com/wake-go/wake/bench/peer/huma"
	"github.com/wake-go/wake/bench/peer/wakeapp"
)

func main() {
	if name := os.Getenv("PROF"); name != "" {
		f, _ := os.Create(name)
		pprof.StartCPUProfile(f)
		defer f.Close()
		defer pprof.StopCPUProfile()
	}
	s := wakeapp.Start
	switch os.Getenv("SRV") {
	case "bare":
		s = bare.Start
	case "huma":
		s = huma.Start
	case "limits":
		s = func(l net.Listener, tasks int) (*peer.Running, error) {
			srv := &http.Server{Handler: bare.Handler(tasks), ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 2 * time.Minute, IdleTimeout: time.Minute}
			go srv.Serve(l)
			return &peer.Running{Stop: srv.Close}, nil
		}
	}
	peer.Main(s)
}
