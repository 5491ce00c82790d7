// Package background runs work after the response has been sent.
//
// A handler adds tasks to its request's list and returns; the client gets its
// answer at once; the tasks run afterwards, one after another, isolated from
// each other and from the connection, bounded in number, and drained when the
// program stops:
//
//	bg, err := background.New(background.Config{})
//	mux := http.NewServeMux()
//	mux.HandleFunc("POST /users/{name}", func(w http.ResponseWriter, r *http.Request) {
//		name := r.PathValue("name")
//		background.From(r.Context()).Add("welcome_mail", func(ctx context.Context) error {
//			return sendWelcomeMail(ctx, name)
//		})
//		w.WriteHeader(http.StatusCreated)
//	})
//	srv := &http.Server{Handler: bg.Middleware(mux)}
//	bg.Configure(srv) // so that tasks wait for the last byte, not just for the handler
//	…
//	srv.Shutdown(ctx)
//	bg.Drain(ctx)
//
// It works with net/http and with every router that takes standard middleware.
//
// # The promise
//
// A request's tasks run only if its operation succeeded: the handler returned
// without a panic, and, where [Tasks.Hold] was called, [Tasks.Commit] was
// called too. None starts before the outermost handler has returned and:
//
//   - on HTTP/1.x, before net/http has written the whole response, the last
//     chunk included, to the operating system, or has given the connection up;
//   - on HTTP/2, before the server has ended the stream;
//   - behind other servers, in recorders and after a hijack: after the handler
//     has returned.
//
// A client that has gone away changes nothing. A task sees the values of the
// context that it was added with (a trace, a logger), and none of its
// cancellation.
//
// It is not promised that the client has received or read the response, nor
// any order against later requests on the same connection. Tasks live in
// memory: a process that crashes loses them.
//
// # Lanes
//
// Tasks that wait (for a mail server, a database) run in the lane "default",
// tasks that compute (resize a picture) in the lane "cpu". A Go program whose
// ordinary goroutines compute makes every request wait: the lane "cpu" runs
// its tasks on operating system threads of low priority, so that requests keep
// the latency of an idle process. [Offload] runs a function there while the
// handler waits for its result.
//
// Each lane has a bound on tasks running and on tasks waiting. What does not
// fit is refused while the request can still be answered with 503, never
// dropped later.
package background
