package background_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/wake-go/wake/background"
)

// The shape of a whole program: the runner's middleware around the
// application, its hooks in the server, and a drain after the server's end.
func Example() {
	bg, err := background.New(background.Config{
		OnEvent: func(e background.Event) {
			if f, ok := e.(background.TaskFinished); ok && f.Err != nil {
				fmt.Println(f.Name, "failed:", f.Err)
			}
		},
	})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /users/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		tasks := background.From(r.Context())
		tasks.Add("crm", func(context.Context) error { return errors.New("no connection") })
		tasks.Add("welcome_mail", func(context.Context) error {
			fmt.Println("mail to", name)
			return nil
		})
		w.WriteHeader(http.StatusCreated)
	})

	srv := httptest.NewUnstartedServer(bg.Middleware(mux)) // or an http.Server
	bg.Configure(srv.Config)
	srv.Start()
	resp, err := http.Post(srv.URL+"/users/ada", "", nil)
	if err != nil {
		panic(err)
	}
	resp.Body.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	srv.Config.Shutdown(ctx)
	if err := bg.Drain(ctx); err != nil {
		fmt.Println(err)
	}
	fmt.Println(resp.Status)
	srv.Close()
	http.DefaultClient.CloseIdleConnections()
	// Output:
	// crm failed: no connection
	// mail to ada
	// 201 Created
}

// runExample serves one request, waits for its tasks and prints the status.
func runExample(bg *background.Runner, h http.HandlerFunc) {
	w := httptest.NewRecorder()
	bg.Middleware(h).ServeHTTP(w, httptest.NewRequest("POST", "/", nil))
	bg.Drain(context.Background())
	fmt.Println(w.Code)
}

func ExampleTasks_Group() {
	bg, _ := background.New(background.Config{})
	sizes := make(chan int, 2)
	resize := func(size int) background.Task {
		return background.Task{Name: fmt.Sprintf("resize_%d", size), Lane: background.CPULane, Run: func(context.Context) error {
			sizes <- size
			return nil
		}}
	}
	runExample(bg, func(w http.ResponseWriter, r *http.Request) {
		tasks := background.From(r.Context())
		tasks.Group(resize(64), resize(256)) // beside each other
		tasks.Add("publish", func(context.Context) error {
			fmt.Println("both are there:", len(sizes))
			return nil
		})
	})
	// Output:
	// both are there: 2
	// 200
}

func ExampleTasks_TryAdd() {
	bg, _ := background.New(background.Config{Lanes: map[string]background.Lane{"mail": {Running: 1, Waiting: 1}}})
	mail := background.Task{Name: "newsletter", Lane: "mail", Run: func(context.Context) error { return nil }}
	runExample(bg, func(w http.ResponseWriter, r *http.Request) {
		err := background.From(r.Context()).TryAdd(mail, mail, mail) // all or none
		if errors.Is(err, background.ErrFull) {
			fmt.Println(err)
			w.Header().Set("Retry-After", "10")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	// Output:
	// background: no place for task "newsletter": lane "mail" holds its 2 tasks already; raise Lane.Waiting or add fewer
	// 503
}

func ExampleOffload() {
	bg, _ := background.New(background.Config{})
	runExample(bg, func(w http.ResponseWriter, r *http.Request) {
		sum, err := background.Offload(r.Context(), bg, func(context.Context) (int, error) {
			sum := 0
			for i := range 1_000_000 { // what would make other requests wait
				sum += i
			}
			return sum, nil
		})
		fmt.Println(sum, err)
	})
	// Output:
	// 499999500000 <nil>
	// 200
}

func ExampleRunner_Drain() {
	bg, _ := background.New(background.Config{})
	bg.Add(context.Background(), background.Task{Name: "report", Run: func(ctx context.Context) error {
		<-ctx.Done()
		return context.Cause(ctx) // it obeys, but is not done
	}})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	var abandoned *background.AbandonedError
	if errors.As(bg.Drain(ctx), &abandoned) {
		for _, t := range abandoned.Tasks {
			fmt.Println(t.Name, t.Started, t.Err)
		}
	}
	// Output:
	// report true background: the drain ran out of time
}

func ExampleRunner_Add() {
	bg, _ := background.New(background.Config{})
	err := bg.Add(context.Background(), background.Task{Name: "warm_up", Run: func(ctx context.Context) error {
		fmt.Println("warm")
		return nil
	}})
	if err != nil {
		fmt.Println(err)
	}
	bg.Drain(context.Background())
	fmt.Println(errors.Is(bg.Add(context.Background(), background.Task{Name: "late", Run: func(context.Context) error { return nil }}), background.ErrClosed))
	// Output:
	// warm
	// true
}
