package wake_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing/fstest"

	"github.com/danielgtaylor/huma/v2"
	"github.com/rs/cors"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/lifespan"
)

// quiet keeps the log out of an example's output.
var quiet = wake.Logger(slog.New(slog.DiscardHandler))

// try runs an application and shows how it answers requests.
func try[S any](app *wake.App[S], requests ...*http.Request) {
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error)
	go func() {
		ended <- app.Run(ctx, quiet, wake.Addr("127.0.0.1:0"), wake.AdminAddr("off"), wake.OnEvent(func(e lifespan.Event) {
			if p, ok := e.(lifespan.PhaseChanged); ok && p.To == lifespan.Ready {
				close(ready)
			}
		}))
	}()
	<-ready
	for _, r := range requests {
		w := httptest.NewRecorder()
		app.ServeHTTP(w, r)
		fmt.Println(strings.TrimSpace(fmt.Sprintln(w.Code, strings.TrimSpace(w.Body.String()))))
		for _, name := range []string{"Location", "Set-Cookie", "Access-Control-Allow-Origin"} {
			if v := w.Header().Get(name); v != "" {
				fmt.Printf("  %s: %s\n", name, v)
			}
		}
	}
	stop()
	if err := <-ended; err != nil {
		fmt.Println(err)
	}
}

func get(path string) *http.Request {
	return httptest.NewRequestWithContext(context.Background(), http.MethodGet, path, nil)
}

func post(path string) *http.Request {
	return httptest.NewRequestWithContext(context.Background(), http.MethodPost, path, nil)
}

type noState struct{}

// An output that is an http.Handler writes the answer itself.
func ExampleGet_redirect() {
	app := wake.New("Links", "1.0", lifespan.Fixed(noState{}))
	wake.Get(app, "/docs/latest", func(context.Context, *struct{}, wake.Call[noState]) (http.Handler, error) {
		return http.RedirectHandler("/docs/v2", http.StatusFound), nil
	})
	try(app, httptest.NewRequest(http.MethodHead, "/docs/latest", nil))
	// Output:
	// 302
	//   Location: /docs/v2
}

// http.ServeFileFS knows ranges, ETags and modification times.
func ExampleGet_file() {
	files := fstest.MapFS{"report.txt": {Data: []byte("all is well")}}
	app := wake.New("Reports", "1.0", lifespan.Fixed(noState{}))
	wake.Get(app, "/report", func(_ context.Context, _ *struct{}, c wake.Call[noState]) (http.HandlerFunc, error) {
		c.Response.Header().Set("Content-Disposition", `attachment; filename="report.txt"`)
		return func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, "report.txt") }, nil
	})
	part := get("/report")
	part.Header.Set("Range", "bytes=0-2")
	try(app, get("/report"), part)
	// Output:
	// 200 all is well
	// 206 all
}

// An empty struct answers 204 without a body.
func ExampleDelete_noContent() {
	app := wake.New("Things", "1.0", lifespan.Fixed(noState{}))
	type input struct {
		ID int `path:"id"`
	}
	wake.Delete(app, "/things/{id}", func(context.Context, *input, wake.Call[noState]) (struct{}, error) {
		return struct{}{}, nil
	})
	try(app, httptest.NewRequest(http.MethodDelete, "/things/1", nil))
	// Output: 204
}

// Status, headers and cookies are set on the call's Response, and apply only
// if the operation succeeds.
func ExampleResponse() {
	app := wake.New("Sessions", "1.0", lifespan.Fixed(noState{}))
	wake.Post(app, "/sessions", func(_ context.Context, _ *struct{}, c wake.Call[noState]) (Message, error) {
		c.Response.Status(http.StatusCreated)
		c.Response.Header().Set("Location", "/sessions/1")
		c.Response.SetCookie(&http.Cookie{Name: "session", Value: "s-1", HttpOnly: true, Secure: true})
		return Message{"welcome back"}, nil
	})
	try(app, post("/sessions"))
	// Output:
	// 201 {"message":"welcome back"}
	//   Location: /sessions/1
	//   Set-Cookie: session=s-1; HttpOnly; Secure
}

// What FastAPI calls a dependency is a function that takes the call. The
// OpenAPI document learns of it by Security, for a scheme that New declares.
func ExampleSecurity() {
	type input struct {
		Authorization string `header:"Authorization"`
	}
	currentUser := func(in *input) (string, error) {
		if in.Authorization != "Bearer t-1" {
			return "", wake.Errorf(http.StatusUnauthorized, "sign in first")
		}
		return "Ada", nil
	}
	app := wake.New("Accounts", "1.0", lifespan.Fixed(noState{}),
		wake.SecurityScheme("bearer", huma.SecurityScheme{Type: "http", Scheme: "bearer"}))
	wake.Get(app, "/me", func(_ context.Context, in *input, _ wake.Call[noState]) (Message, error) {
		user, err := currentUser(in)
		if err != nil {
			return Message{}, err
		}
		return Message{"you are " + user}, nil
	}, wake.Security("bearer"), wake.Errors(http.StatusUnauthorized))

	signedIn := get("/me")
	signedIn.Header.Set("Authorization", "Bearer t-1")
	try(app, get("/me"), signedIn)
	fmt.Println(app.Huma().OpenAPI().Paths["/me"].Get.Security)
	// Output:
	// 401 {"title":"Unauthorized","status":401,"detail":"sign in first"}
	// 200 {"message":"you are Ada"}
	// [map[bearer:[]]]
}

// Any middleware of net/http fits; CORS is best left to a library.
func ExampleRouter_Use_cors() {
	app := wake.New("API", "1.0", lifespan.Fixed(noState{}))
	app.Use(cors.New(cors.Options{AllowedOrigins: []string{"https://app.example"}}).Handler)
	wake.Get(app, "/ping", func(context.Context, *struct{}, wake.Call[noState]) (Message, error) { return Message{"pong"}, nil })

	preflight := httptest.NewRequest(http.MethodOptions, "/ping", nil)
	preflight.Header.Set("Origin", "https://app.example")
	preflight.Header.Set("Access-Control-Request-Method", http.MethodGet)
	try(app, preflight)
	// Output:
	// 204
	//   Access-Control-Allow-Origin: https://app.example
}
