// Package lifespan runs an application inside one function: what comes before
// yield sets it up, what comes after yield cleans it up, and yield is the
// application's life.
//
//	func life(ctx context.Context, yield func(*State) error) error {
//		db, err := openDB(ctx)
//		if err != nil {
//			return fmt.Errorf("open database: %w", err)
//		}
//		defer db.Close()
//		return yield(&State{DB: db})
//	}
//
//	func main() {
//		err := lifespan.Run(context.Background(), life, serve, lifespan.Config{
//			Signals: []os.Signal{os.Interrupt, syscall.SIGTERM},
//		})
//		if err != nil {
//			log.Print(err)
//		}
//		os.Exit(lifespan.ExitCode(err))
//	}
//
// [Run] adds what is hard to get right by hand. Every phase has a limit, also
// when its code ignores its context. A signal ends a set-up that hangs, the
// first one while serving drains, the second cuts the drain, the third exits.
// Clean-up runs whatever happened before it, after the last request and after
// the last background part ([Go]). Panics become errors, no error hides
// another, and each phase that failed has an exit code of its own ([ExitCode]).
//
// Lifespans compose: [Then] nests one in another that it needs, [Both] and
// [Join] start two side by side, [Hooks] makes one of a pair of functions, and
// [Fixed] hands a test's state to the code under test.
//
// # Phases
//
// An application goes through starting, ready, draining, cleaning and stopped,
// in this order and each at most once. Ready is left out if [MarkReady] was
// never called, draining if nobody asked for a stop before serving ended.
// Config.OnEvent hears of each change.
//
// # The context
//
// The function has one context for its whole life. It carries the values of
// the context given to Run, but not its cancellation: a pool opened with it
// works until the last deferred Close. It is cancelled only if set-up is
// interrupted, if clean-up passes its limit, and when Run returns.
// [context.Cause] tells which.
//
// # What is not promised
//
// Go cannot end a goroutine from outside. Code that ignores its context is
// abandoned: Run goes on without it, reports where it was stuck as a
// [StuckError], and the goroutine stays until the process ends. A third signal
// and a crash skip clean-up.
package lifespan
