// Package chi is the chi router with encoding/json.
package chi

import (
	"net"
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/wake-go/wake/bench/peer"
)

// Start starts the server. It has no tasks of its own.
func Start(l net.Listener, o peer.Options) (*peer.Running, error) {
	r := chi.NewRouter()
	r.Get("/hello/{name}", func(w http.ResponseWriter, r *http.Request) {
		peer.Encode(w, peer.Greet(chi.URLParam(r, "name")))
	})
	r.Post("/users", func(w http.ResponseWriter, r *http.Request) {
		if user, ok := peer.Decode(w, r); ok {
			peer.Encode(w, peer.Created{ID: 1, Username: user.Username})
		}
	})
	return peer.Serve(l, r, o), nil
}
