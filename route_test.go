package wake_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/lifespan"
	"github.com/wake-go/wake/waketest"
)

// A redirect would make the client send its request to a path it did not ask for.
func TestARequestThatChangesSomethingIsNotRedirectedToACleanPath(t *testing.T) {
	app := wake.New("Test", "1.0", lifespan.Fixed(0))
	wake.Post(app, "/things/{name}", func(context.Context, *struct{}, wake.Call[int]) (string, error) { return "done", nil })
	wake.Get(app, "/things", func(context.Context, *struct{}, wake.Call[int]) (string, error) { return "all", nil })
	client := waketest.Start(t, app)
	for path, want := range map[string]int{
		"/things/a":             http.StatusOK,
		"/things/..a":           http.StatusOK,
		"/things/.a":            http.StatusOK,
		"/things/a%2F%2Fb":      http.StatusOK,
		"/things/%2e%2e":        http.StatusOK,
		"/things/..":            http.StatusNotFound,
		"/things/.":             http.StatusNotFound,
		"/things/../things/a":   http.StatusNotFound,
		"/./things/a":           http.StatusNotFound,
		"//things/a":            http.StatusNotFound,
		"/things//a":            http.StatusNotFound,
		"/things/%2e%2e/../a":   http.StatusNotFound,
		"/things/a%2F%2F/../b/": http.StatusNotFound,
	} {
		if res := client.Post(path, nil); res.Status != want {
			t.Errorf("POST %s: %s, want %d", path, res, want)
		}
	}
	if res := client.Get("//things"); res.Status != http.StatusTemporaryRedirect {
		t.Errorf("GET //things: %s, want net/http's redirect", res)
	}
}

func TestAFormWithoutRequiredFieldsMayBeLeftOut(t *testing.T) {
	type optional struct {
		RawBody huma.MultipartFormFiles[struct {
			Picture huma.FormFile `form:"picture" required:"false"`
		}]
	}
	type required struct {
		RawBody huma.MultipartFormFiles[struct {
			Picture huma.FormFile `form:"picture" required:"true"`
		}]
	}
	app := wake.New("Test", "1.0", lifespan.Fixed(0))
	wake.Post(app, "/optional", func(_ context.Context, in *optional, _ wake.Call[int]) (bool, error) {
		return in.RawBody.Data().Picture.IsSet, nil
	})
	wake.Post(app, "/required", func(context.Context, *required, wake.Call[int]) (bool, error) { return true, nil })
	client := waketest.Start(t, app)

	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	if _, err := w.CreateFormFile("picture", "p"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	for name, test := range map[string]struct {
		path   string
		body   any
		header []string
		status int
		want   string
	}{
		"a form":              {"/optional", b.String(), []string{"Content-Type", w.FormDataContentType()}, 200, "true"},
		"nothing":             {"/optional", nil, nil, 200, "false"},
		"nothing in chunks":   {"/optional", io.MultiReader(), nil, 200, "false"},
		"nothing, with type":  {"/optional", "", []string{"Content-Type", "application/x-www-form-urlencoded"}, 200, "false"},
		"something else":      {"/optional", "a=b", []string{"Content-Type", "application/x-www-form-urlencoded"}, 422, ""},
		"something in chunks": {"/optional", io.MultiReader(strings.NewReader("x")), nil, 422, ""},
		"an empty form":       {"/optional", "", []string{"Content-Type", "multipart/form-data; boundary=x"}, 422, ""},
		"a required field":    {"/required", nil, nil, 422, ""},
	} {
		res := client.Post(test.path, test.body, test.header...)
		if res.Status != test.status || test.status == 200 && strings.TrimSpace(string(res.Body)) != test.want {
			t.Errorf("%s: %s, want %d %s", name, res, test.status, test.want)
		}
	}
}

// Stats is called like a type of another package.
type Stats struct{ Mine bool }

func TestTypesOfDifferentPackagesMayHaveTheSameName(t *testing.T) {
	app := wake.New("Test", "1.0", lifespan.Fixed(0))
	wake.Get(app, "/mine", func(context.Context, *struct{}, wake.Call[int]) (Stats, error) { return Stats{}, nil })
	wake.Get(app, "/theirs", func(context.Context, *struct{}, wake.Call[int]) (background.Stats, error) {
		return background.Stats{}, nil
	})
	wake.Get(app, "/all", func(context.Context, *struct{}, wake.Call[int]) ([]*background.Stats, error) { return nil, nil })
	var doc struct {
		Components struct{ Schemas map[string]any }
	}
	waketest.Start(t, app).Get("/openapi.json").JSON(&doc)
	if doc.Components.Schemas["Stats"] == nil || doc.Components.Schemas["BackgroundStats"] == nil {
		t.Errorf("schemas %v", doc.Components.Schemas)
	}
}

// A stream that returns what Send told it has ended in good order, and its tasks run.
func TestAStreamWhoseClientHasGoneRunsItsTasks(t *testing.T) {
	ran := make(chan struct{})
	sent := make(chan error, 1)
	app := wake.New("Test", "1.0", lifespan.Fixed(0))
	wake.Stream(app, "/events", func(_ context.Context, _ *struct{}, c wake.StreamCall[int]) error {
		c.Tasks.Func("after", func(context.Context) error { close(ran); return nil })
		for {
			if err := c.Send("news"); err != nil { // does not look at its context
				sent <- err
				return err
			}
		}
	})
	client := waketest.Start(t, app)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, client.URL("/events"), nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.HTTP().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, res.Body); !errors.Is(err, context.Canceled) {
		t.Errorf("the body ended with %v", err)
	}
	res.Body.Close()
	if err := <-sent; err == nil {
		t.Error("Send did not tell that the client has gone")
	}
	<-ran
}
