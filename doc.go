// Package wake is a web application's frame: what happens before the first
// request, after each response, and before the program ends.
//
//   - Lifespan: one function around one yield sets up what all requests share,
//     hands it out as typed state, and cleans up when the last request and the
//     last task have ended.
//   - Queue: the same tasks on disk before the response, retried, scheduled, run
//     at least once, in this process or in others.
//   - Background: tasks that run after the response has been sent, in order,
//     isolated, bounded, and drained when the program stops.
//   - Typed operations on net/http: a handler is a function from an input
//     struct to an output, validated and described by OpenAPI.
//
// A program declares its tasks and operations and passes control to [Main],
// which serves them, handles signals and exits with a code that tells what
// went wrong:
//
//	func main() {
//		app := wake.New("Signup", "1.0", life)
//		wake.Post(app, "/register/{username}", register)
//		wake.Main(app)
//	}
//
// # Errors and answers
//
// An operation's output is its answer's JSON body; an empty struct answers 204
// without one, and an output that is an [http.Handler] writes the answer
// itself: [http.RedirectHandler], a file, a page. [Call].Response sets
// status, headers and cookies. An error made by [Errorf] is shown to the client
// as a problem document (RFC 9457); any other error is logged and answered
// with a bare 500.
//
// # Tasks
//
// What an operation adds to [Call].Tasks exists only if it returns no error,
// and runs once the answer has been sent; package background has the exact
// promise. The answer is encoded before the tasks are accepted and before the
// first byte is written.
//
// What it adds to [Call].Queue is committed, durably, before the first byte of
// the answer, and runs at least once, see [Queue] and package durable. One
// declaration serves both:
//
//	c.Tasks.Add(SendMail.With(to))                     // after the response, in memory
//	id := c.Queue.Add(SendMail.With(to))               // on disk before the response
//	id := c.Queue.Add(SendMail.With(to).In(time.Hour)) // likewise, and later
//
// An application that has a queue loses fewer tasks in memory, too: those that
// were given to [Router.Tasks] move to the queue when their lane is full, and
// when the program stops before they have started.
//
// It is the operation's error that decides, not the status that middleware
// makes of it. GET operations also answer HEAD, and clients repeat requests:
// add tasks in POST, or give them a key. After a 503 it is not known whether
// the tasks were kept.
//
// # Stopping
//
// On SIGINT or SIGTERM readiness turns false, [Draining] closes, workers claim
// no more, listeners close, requests end, their tasks end, and the lifespan
// cleans up. Queued tasks that the drain's limit cuts short go back to the
// queue. A second
// signal cuts the drain short, a third one exits at once. Package lifespan has
// the exact rules and the exit codes.
package wake
