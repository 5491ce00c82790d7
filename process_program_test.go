//go:build unix

package wake_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/lifespan"
)

// programs are what the test binary can be, see TestMain.
var programs = map[string]func(){
	"busy shop":          func() { wake.Main(busyShop()) },
	"busy shop with TLS": func() { wake.Main(busyShop(withTLS)) },
	"stubborn shop":      func() { wake.Main(stubbornShop()) },
	"very stubborn shop": func() { wake.Main(stubbornShop(wake.Grace(time.Hour))) },
	"delayed shop":       func() { wake.Main(stubbornShop(wake.DrainDelay(500 * time.Millisecond))) },
	"shop with a listener of its own": func() {
		wake.Main(stubbornShop(wake.Listener(mortalListener())))
	},
	"optioned shop": func() {
		wake.Main(stubbornShop(wake.Addr("127.0.0.1:0"), wake.AdminAddr("127.0.0.1:0"), wake.DrainTimeout(7*time.Second)))
	},
	"wrong options": func() { wake.Main(stubbornShop(wake.IdleTimeout(-1))) },
	"leaky shop":    func() { wake.Main(leakyShop()) },
	"queue shop":    func() { wake.Main(queueShop()) },

	"set-up fails":  lives(func(context.Context, func(*shop) error) error { return errSetUp }),
	"set-up panics": lives(func(context.Context, func(*shop) error) error { panic("the set-up is broken") }),
	"set-up waits": lives(func(ctx context.Context, _ func(*shop) error) error {
		say("set up")
		<-ctx.Done()
		say("clean up")
		return ctx.Err()
	}),
	"set-up hangs": lives(func(context.Context, func(*shop) error) error {
		say("set up")
		select {}
	}, wake.StartTimeout(200*time.Millisecond), wake.Grace(100*time.Millisecond)),
	"clean-up fails": lives(func(ctx context.Context, yield func(*shop) error) error {
		return errors.Join(shopLife(ctx, yield), errCleanUp)
	}),
	"clean-up hangs": lives(func(ctx context.Context, yield func(*shop) error) error {
		_ = shopLife(ctx, yield) // it never gets to return it
		select {}
	}, wake.StopTimeout(200*time.Millisecond), wake.Grace(100*time.Millisecond)),
}

var (
	errSetUp   = errors.New("the database is not there")
	errCleanUp = errors.New("the database does not close")
)

// lives is a program of which only the life matters.
func lives(life lifespan.Func[*shop], opts ...wake.Option) func() {
	return func() {
		app := wake.New("Short-lived shop", "1", life, opts...)
		wake.Get(app, "/ping", func(context.Context, *noInput, wake.Call[*shop]) (string, error) { return "pong", nil })
		wake.Main(app)
	}
}

// withTLS borrows a certificate.
var withTLS = wake.HTTPServer(func(srv *http.Server) {
	lender := httptest.NewTLSServer(nil)
	defer lender.Close()
	srv.TLSConfig = &tls.Config{Certificates: lender.TLS.Certificates}
})

// mortalListener dies at SIGUSR2.
func mortalListener() net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	end := opensAt(syscall.SIGUSR2)
	go func() {
		<-end
		l.Close()
	}()
	return l
}

// say prints one line of what the program does. The kernel keeps lines whole
// and in order.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stdout, format+"\n", args...)
}

// A shop is the state of the test programs: something that must not be used
// once it is closed.
type shop struct{ closed atomic.Bool }

var errClosed = errors.New("the shop is closed")

// use says what it is used for.
func (s *shop) use(format string, args ...any) error {
	if s.closed.Load() {
		say("used after the clean-up: "+format, args...)
		return errClosed
	}
	say(format, args...)
	return nil
}

func shopLife(_ context.Context, yield func(*shop) error) error {
	s := &shop{}
	err := yield(s)
	s.closed.Store(true)
	say("clean up")
	return err
}

// pulsingLife has a part that dies at SIGUSR1.
func pulsingLife(ctx context.Context, yield func(*shop) error) error {
	end := opensAt(syscall.SIGUSR1)
	lifespan.Go(ctx, "pulse", func(ctx context.Context) error {
		select {
		case <-end:
			return errors.New("no pulse")
		case <-ctx.Done():
			return nil
		}
	})
	return shopLife(ctx, yield)
}

// busyShop has short operations with tasks, of times that differ.
func busyShop(opts ...wake.Option) *wake.App[*shop] {
	app := wake.New("Busy shop", "1", pulsingLife, append(opts, wake.DrainTimeout(20*time.Second))...)
	work := func(most int) { time.Sleep(time.Duration(rand.IntN(most)) * time.Microsecond) }
	task := func(name string) *wake.Task[*shop, int] {
		t := wake.Define(name, func(_ context.Context, s *shop, order int) error {
			work(3000)
			return s.use("%s %d", name, order)
		})
		app.Tasks(t)
		return t
	}
	bill, ship, view := task("bill"), task("ship"), task("view")
	type input struct {
		Order int `path:"order"`
	}
	type order struct {
		Order int `path:"order"`
		Body  struct {
			Item string `json:"item"`
		}
	}
	wake.Post(app, "/orders/{order}", func(_ context.Context, in *order, c wake.Call[*shop]) (string, error) {
		work(5000)
		c.Tasks.Add(bill.With(in.Order), ship.With(in.Order))
		return in.Body.Item, c.State.use("request %d", in.Order)
	})
	wake.Get(app, "/orders/{order}", func(_ context.Context, in *input, c wake.Call[*shop]) (string, error) {
		work(2000)
		c.Tasks.Add(view.With(in.Order))
		return "seen", c.State.use("request %d", in.Order)
	})
	return app
}

const secret = "hunter2"

// leakyShop has operations that fail with what no client may see.
func leakyShop() *wake.App[*shop] {
	app := wake.New("Leaky shop", "1", shopLife)
	wake.Get(app, "/error", func(context.Context, *noInput, wake.Call[*shop]) (string, error) {
		return "", fmt.Errorf("the database of %s has failed", secret)
	})
	wake.Get(app, "/panic", func(context.Context, *noInput, wake.Call[*shop]) (string, error) {
		panic("the state of " + secret + " is broken")
	})
	app.Handle("GET /mounted", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic("the state of " + secret + " is broken")
	}))
	fails := wake.Define0("failing task", func(context.Context, *shop) error { return errors.New("no paper") })
	panics := wake.Define0("panicking task", func(context.Context, *shop) error { panic("no ink") })
	app.Tasks(fails, panics)
	wake.Post(app, "/tasks", func(_ context.Context, _ *noInput, c wake.Call[*shop]) (string, error) {
		c.Tasks.Add(fails.With(), panics.With())
		return "later", nil
	})
	return app
}
