// Package bare is net/http's mux with encoding/json and nothing else.
package bare

import (
	"net"
	"net/http"

	"github.com/wake-go/wake/bench/peer"
)

// Start starts the server. Its tasks are bare goroutines: unbounded, not
// drained, and free to start before the response.
func Start(l net.Listener, o peer.Options) (*peer.Running, error) {
	return peer.Serve(l, Handler(o.Tasks), o), nil
}

// Handler returns the server's handler.
func Handler(tasks int) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		for range tasks {
			go func() { peer.Task(name) }()
		}
		peer.Encode(w, peer.Greet(name))
	})
	mux.HandleFunc("POST /users", func(w http.ResponseWriter, r *http.Request) {
		user, ok := peer.Decode(w, r)
		if !ok {
			return
		}
		for range tasks {
			go func() { peer.Task(user.Username) }()
		}
		peer.Encode(w, peer.Created{ID: 1, Username: user.Username})
	})
	return mux
}
