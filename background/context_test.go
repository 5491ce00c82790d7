package background_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/background"
)

type key string

func TestTasksSeeTheValuesOfTheContextTheyWereAddedWith(t *testing.T) {
	r := newRunner(t, background.Config{})
	req := httptest.NewRequest("GET", "/", nil)
	req = req.WithContext(context.WithValue(req.Context(), key("outside"), 1))
	serveRequest(t, r, req, func(w http.ResponseWriter, req *http.Request) {
		inner, cancel := context.WithCancel(context.WithValue(req.Context(), key("middleware"), 2))
		defer cancel() // as middleware does
		want := func(name string, tasks *background.Tasks, outside, middleware any) {
			tasks.Add(name, func(ctx context.Context) error {
				for range 2 { // before and after the context's cancellation is made
					if a, b := ctx.Value(key("outside")), ctx.Value(key("middleware")); a != outside || b != middleware {
						t.Errorf("%s saw %v and %v", name, a, b)
					}
					<-time.After(0)
					select {
					case <-ctx.Done():
						t.Errorf("%s: %v", name, context.Cause(ctx))
					default:
					}
				}
				return nil
			})
		}
		want("request's", background.From(req.Context()), 1, nil)
		want("middleware's", background.From(inner), 1, 2)
		background.From(inner).Add("parent", func(ctx context.Context) error {
			want("child", background.From(ctx), 1, 2)
			want("grandchild", background.From(context.WithValue(ctx, key("outside"), 3)), 1, 2)
			return nil
		})
	})
}

func TestTimeoutsCancelWithTheirCause(t *testing.T) {
	for name, c := range map[string]struct {
		config, task, want time.Duration
	}{
		"default": {0, 0, 15 * time.Minute}, "config's": {time.Minute, 0, time.Minute}, "task's": {time.Minute, time.Second, time.Second},
		"none": {-1, 0, 0}, "task without": {time.Minute, -1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRunner(t, background.Config{Timeout: c.config})
				started := time.Now()
				answer(r, func(w http.ResponseWriter, req *http.Request) {
					background.From(req.Context()).AddTask(background.Task{Name: "x", Timeout: c.task, Run: func(ctx context.Context) error {
						deadline, ok := ctx.Deadline()
						if ok != (c.want > 0) || ok && !deadline.Equal(started.Add(c.want)) {
							t.Errorf("deadline %v, %v", deadline, ok)
						}
						select {
						case <-ctx.Done():
						case <-time.After(24 * time.Hour):
						}
						if c.want == 0 {
							return ctx.Err()
						}
						if took := time.Since(started); took != c.want || ctx.Err() != context.DeadlineExceeded || context.Cause(ctx) != background.ErrTimeout {
							t.Errorf("after %v: %v, %v", took, ctx.Err(), context.Cause(ctx))
						}
						return nil
					}})
				})
				if err := r.Drain(t.Context()); err != nil {
					t.Error(err)
				}
				if s := r.Stats(); s.Finished != 1 {
					t.Error("a task without a limit was cancelled")
				}
			})
		})
	}
}

// questions are ways to ask a context whether and why it has ended.
func questions() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Err":   func(ctx context.Context) error { return ctx.Err() },
		"Cause": context.Cause,
		"Done": func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			default:
				return nil
			}
		},
		"WithCancel": func(ctx context.Context) error {
			derived, cancel := context.WithCancel(ctx)
			defer cancel()
			return context.Cause(derived)
		},
		"WithValue": func(ctx context.Context) error { return context.Cause(context.WithValue(ctx, key("a"), 1)) },
		"AfterFunc": func(ctx context.Context) error {
			called := false
			stop := context.AfterFunc(ctx, func() { called = true })
			synctest.Wait()
			if called != !stop() {
				return fmt.Errorf("called %v", called)
			}
			return context.Cause(ctx)
		},
	}
}

// checkAnswers checks that all say the same.
func checkAnswers(t *testing.T, ctx context.Context, want, wantCause error) {
	t.Helper()
	for name, f := range questions() {
		if err := f(ctx); err != wantCause && !(name == "Err" && err == want) {
			t.Errorf("%s says %v, want %v", name, err, wantCause)
		}
	}
}

// Whatever is asked of a context first, the answers agree.
func TestContextsAnswerTheSameInAnyOrder(t *testing.T) {
	cause := errors.New("why")
	for first, f := range questions() {
		t.Run("request, first "+first, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRunner(t, background.Config{})
				ctx, cancel := context.WithCancelCause(t.Context())
				var kept context.Context
				r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					kept = req.Context()
					if err := f(kept); err != nil {
						t.Errorf("before: %v", err)
					}
					cancel(cause)
					f(kept)
					checkAnswers(t, kept, context.Canceled, cause)
				})).ServeHTTP(nil, httptest.NewRequestWithContext(ctx, "GET", "/", nil))
				checkAnswers(t, kept, context.Canceled, cause)
			})
		})
		t.Run("request that ended, first "+first, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var kept context.Context
				newRunner(t, background.Config{}).Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					kept = req.Context()
				})).ServeHTTP(nil, httptest.NewRequest("GET", "/", nil))
				f(kept)
				checkAnswers(t, kept, context.Canceled, context.Canceled)
			})
		})
		t.Run("task, first "+first, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRunnerUnchecked(t, background.Config{})
				var kept context.Context
				r.Add(t.Context(), background.Task{Name: "x", Timeout: -1, Run: func(ctx context.Context) error {
					kept = ctx
					time.Sleep(2 * time.Second) // the drain is cut meanwhile
					f(ctx)
					checkAnswers(t, ctx, context.Canceled, cause)
					return nil
				}})
				synctest.Wait()
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Second, func() { cancel(cause) })
				if err := r.Drain(ctx); err != nil {
					t.Error(err)
				}
				checkAnswers(t, kept, context.Canceled, cause)
			})
		})
		t.Run("task too long, first "+first, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				newRunner(t, background.Config{}).Add(t.Context(), background.Task{Name: "x", Timeout: time.Second, Run: func(ctx context.Context) error {
					time.Sleep(2 * time.Second)
					f(ctx)
					checkAnswers(t, ctx, context.DeadlineExceeded, background.ErrTimeout)
					return nil
				}})
			})
		})
		t.Run("task that ended, first "+first, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var kept context.Context
				newRunner(t, background.Config{}).Add(t.Context(), background.Task{Name: "x", Run: func(ctx context.Context) error { kept = ctx; return nil }})
				synctest.Wait()
				f(kept)
				checkAnswers(t, kept, context.Canceled, context.Canceled)
			})
		})
	}
}

// Deriving from a context of this package starts no goroutine, as it does not
// for those of package context, and leaves nothing behind.
func TestDerivedContextsAreTreatedAsThoseOfTheStandardLibrary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		check := func(ctx context.Context) {
			before := runtime.NumGoroutine()
			var cancels []context.CancelFunc
			for range 100 {
				_, cancel := context.WithTimeout(context.WithValue(ctx, key("a"), 1), time.Hour)
				cancels = append(cancels, cancel)
			}
			if n := runtime.NumGoroutine() - before; n > 20 { // others may come and go
				t.Errorf("deriving started %d goroutines", n)
			}
			for _, cancel := range cancels {
				cancel()
			}
			derived, cancel := context.WithCancel(ctx)
			defer cancel()
			if err := derived.Err(); err != nil {
				t.Error(err)
			}
		}
		serve(t, newRunner(t, background.Config{}), func(w http.ResponseWriter, req *http.Request) {
			check(req.Context())
			background.From(req.Context()).Add("x", func(ctx context.Context) error { check(ctx); return nil })
		})
	})
}

func TestWhatATaskLeavesRunningIsCancelledWithIt(t *testing.T) {
	r := newRunner(t, background.Config{})
	gone := make(chan error, 2)
	serve(t, r, func(w http.ResponseWriter, req *http.Request) {
		background.From(req.Context()).Add("x", func(ctx context.Context) error {
			derived, cancel := context.WithCancel(ctx)
			go func() { defer cancel(); <-derived.Done(); gone <- ctx.Err() }()
			go func() { <-ctx.Done(); gone <- ctx.Err() }() // perhaps only after the end
			return nil
		})
	})
	for range 2 {
		if err := wait(t, gone, "the task's goroutine"); err != context.Canceled {
			t.Errorf("got %v", err)
		}
	}
}

func TestContextsMayBeUsedByManyGoroutines(t *testing.T) {
	r := newRunner(t, background.Config{})
	use := func(ctx context.Context) {
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for range 20 {
					switch i % 4 {
					case 0:
						ctx.Err()
					case 1:
						ctx.Done()
					case 2:
						ctx.Value(key("a"))
					case 3:
						_, cancel := context.WithCancel(ctx)
						cancel()
					}
				}
			})
		}
		all.Wait()
	}
	for range 20 {
		serve(t, r, func(w http.ResponseWriter, req *http.Request) {
			use(req.Context())
			background.From(req.Context()).Add("x", func(ctx context.Context) error { use(ctx); return nil })
		})
	}
}
