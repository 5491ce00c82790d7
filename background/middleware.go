package background

import "net/http"

// Middleware gives each request a task list, see [From]. It must be the
// outermost handler, around every other middleware: what it wraps is what its
// tasks run after.
//
// Installed twice with the same runner it has one effect. Inside an
// application with a runner of its own, such as a mounted one, its tasks also
// wait for the outer response, and are given up if the outer operation fails.
func (r *Runner) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		outer := outerScope(req.Context())
		if outer != nil && outer.runner == r {
			next.ServeHTTP(w, req)
			return
		}
		s := r.newScope(req)
		failed := true
		defer func() { s.end(w, req, outer, failed) }()
		next.ServeHTTP(w, req.WithContext(s))
		failed = false
	})
}
