// Package huma is Huma on net/http's mux, without the transformer that adds a
// link to the schema to every answer. Wake is built on it.
package huma

import (
	"context"
	"net"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/wake-go/wake/bench/peer"
)

type helloInput struct {
	Name string `path:"name" maxLength:"32"`
}

type userInput struct{ Body peer.User }

type output[T any] struct{ Body T }

// Start starts the server. It has no tasks of its own.
func Start(l net.Listener, o peer.Options) (*peer.Running, error) {
	cfg := huma.DefaultConfig("bench", "1")
	cfg.CreateHooks = nil
	mux := http.NewServeMux()
	api := humago.New(mux, cfg)
	huma.Get(api, "/hello/{name}", func(_ context.Context, in *helloInput) (*output[peer.Message], error) {
		return &output[peer.Message]{peer.Greet(in.Name)}, nil
	})
	huma.Post(api, "/users", func(_ context.Context, in *userInput) (*output[peer.Created], error) {
		return &output[peer.Created]{peer.Created{ID: 1, Username: in.Body.Username}}, nil
	})
	return peer.Serve(l, mux, o), nil
}
