// Package waketest runs an application inside a test.
//
// [Start] runs the very same lifespan, operations and drain as production, on
// a listener in memory:
//
//	func TestRegister(t *testing.T) {
//		app := waketest.Start(t, newApp())
//		res := app.Post("/register/Ada", nil)
//		if res.Status != http.StatusOK {
//			t.Fatal(res)
//		}
//		// The request's tasks have run: look at what they did.
//	}
//
// A request returns when its tasks have ended, and a task that fails fails the
// test, unless [AllowTaskErrors] is given. [StartWith] replaces the lifespan,
// usually with lifespan.Fixed and a state of fakes. Queued tasks wait for
// [Client.RunQueue], and those that wait for their time for [Client.Advance];
// [Queued] shows what has been added. [Call] tries one handler
// without an application. All of it works inside a testing/synctest bubble,
// where hours pass in no time.
package waketest
