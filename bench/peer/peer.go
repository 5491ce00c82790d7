// Package peer is what the compared servers have in common: the messages, the
// checks, the work after a response, and how they run.
package peer

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/mail"
	"os"
	"sync/atomic"
	"time"
)

// Message is the answer of GET /hello/{name}.
type Message struct {
	Message string `json:"message"`
}

// User is the body of POST /users.
type User struct {
	Username string `json:"username" minLength:"2" maxLength:"32"`
	Email    string `json:"email" format:"email"`
	Age      int    `json:"age" minimum:"0" maximum:"150"`
}

// Created is the answer of POST /users.
type Created struct {
	ID       int    `json:"id"`
	Username string `json:"username"`
}

// Greet makes the answer of GET /hello/{name}.
func Greet(name string) Message { return Message{"Hello " + name} }

// Check does by hand what the tags of User ask for.
func (u *User) Check() error {
	if n := len(u.Username); n < 2 || n > 32 {
		return errors.New("username: expected length from 2 to 32")
	}
	if u.Age < 0 || u.Age > 150 {
		return errors.New("age: expected a number from 0 to 150")
	}
	if _, err := mail.ParseAddress(u.Email); err != nil {
		return fmt.Errorf("email: %w", err)
	}
	return nil
}

// Decode reads and checks a user, as a handler without a framework does.
func Decode(w http.ResponseWriter, r *http.Request) (u User, ok bool) {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&u)
	if err == nil {
		err = u.Check()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	}
	return u, err == nil
}

// Encode answers with JSON, as a handler without a framework does.
func Encode(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// Ran counts tasks that have run. The task of the benchmarks does no more, so
// that what is measured is what it costs to run one.
var Ran atomic.Int64

// Task is the work after a response.
func Task(name string) {
	if name != "" {
		Ran.Add(1)
	}
}

// A Running is a server at work.
type Running struct {
	Handler http.Handler    // what serves requests
	Context context.Context // what its server gives to requests
	Stop    func() error
}

// Options are how a server runs. Not every one has them all.
type Options struct {
	Tasks  int  // after each response
	Limits bool // the time limits that Wake sets by default
}

// A Start starts a server on l.
type Start func(l net.Listener, o Options) (*Running, error)

// Serve runs a plain handler on an [http.Server].
func Serve(l net.Listener, h http.Handler, o Options) *Running {
	srv := &http.Server{Handler: h}
	if o.Limits {
		srv.ReadHeaderTimeout, srv.WriteTimeout, srv.IdleTimeout = 5*time.Second, 2*time.Minute, time.Minute
	}
	go srv.Serve(l)
	return &Running{Handler: h, Context: context.Background(), Stop: srv.Close}
}

// Main is the program of a compared server: it prints its address and serves
// until its standard input ends.
func Main(start Start) {
	var o Options
	flag.IntVar(&o.Tasks, "tasks", 0, "tasks after each response")
	flag.BoolVar(&o.Limits, "limits", false, "set the time limits that Wake sets by default")
	flag.Parse()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		var running *Running
		if running, err = start(l, o); err == nil {
			fmt.Println(l.Addr())
			_, _ = io.Copy(io.Discard, os.Stdin)
			err = running.Stop()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
