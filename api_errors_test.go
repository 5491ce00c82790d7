package wake_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/waketest"
)

// fail makes an application whose only operation adds a task and fails.
func failWith(t *testing.T, err error, opts ...wake.Option) (*waketest.Client, *world) {
	t.Helper()
	app, w := newWorld(opts...)
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (textAnswer, error) {
		c.Tasks.Add(noted.With("ran"))
		return textAnswer{"never"}, err
	})
	return waketest.Start(t, app), w
}

func TestAnErrorMadeByErrorfIsShown(t *testing.T) {
	client, w := failWith(t, fmt.Errorf("register: %w", wake.Errorf(http.StatusConflict, "the name %q is taken", "Ada")))
	p := problemOf(t, client.Post("/", nil), http.StatusConflict)
	if p.Detail != `the name "Ada" is taken` {
		t.Errorf("detail %q", p.Detail)
	}
	w.expect(t)
}

func TestAnErrorHasAHeaderAndACauseThatIsNotShown(t *testing.T) {
	var logs logbook
	cause := errors.New("password hunter2 refused by 10.0.0.5")
	err := &wake.Error{Status: http.StatusTooManyRequests, Detail: "slow down", Header: http.Header{"Retry-After": {"7"}}, Err: cause}
	if !errors.Is(err, cause) || err.Error() != "slow down: "+cause.Error() {
		t.Errorf("the error hides its cause from the program: %v", err)
	}
	client, _ := failWith(t, err, logs.option())
	res := client.Post("/", nil)
	p := problemOf(t, res, http.StatusTooManyRequests)
	if p.Detail != "slow down" || res.Header.Get("Retry-After") != "7" || strings.Contains(string(res.Body), "hunter2") {
		t.Errorf("%v, header %v", res, res.Header)
	}
}

func TestAnErrorWithoutAValidStatusIs500(t *testing.T) {
	for _, status := range []int{0, 42, 200, 600} {
		client, _ := failWith(t, &wake.Error{Status: status, Detail: "odd"})
		problemOf(t, client.Post("/", nil), http.StatusInternalServerError)
	}
}

func TestAnErrorWithNotModifiedHasNoBody(t *testing.T) {
	client, _ := failWith(t, &wake.Error{Status: http.StatusNotModified, Header: http.Header{"ETag": {`"v1"`}}})
	res := client.Post("/", nil)
	if res.Status != http.StatusNotModified || len(res.Body) != 0 {
		t.Errorf("got %v", res)
	}
}

func TestTheStatusThatAnErrorChoosesCountsWhateverItWraps(t *testing.T) {
	client, _ := failWith(t, wake.Errorf(http.StatusTooManyRequests, "not now: %w", background.ErrFull))
	problemOf(t, client.Post("/", nil), http.StatusTooManyRequests)
}

// No text of an error that was not made for the client reaches it, by whatever
// way it leaves the program. Every byte of the answer is searched.
func TestNoInternalErrorTextReachesTheClient(t *testing.T) {
	const secret = "password=hunter2"
	bare := errors.New(secret)
	app, w := newWorld()
	add := func(c wake.Call[*world]) { c.Tasks.Add(noted.With("ran")) }
	wake.Get(app, "/error", func(_ context.Context, _ *none, c wake.Call[*world]) (textAnswer, error) {
		add(c)
		return textAnswer{secret}, bare
	})
	wake.Get(app, "/panic", func(_ context.Context, _ *none, c wake.Call[*world]) (textAnswer, error) {
		add(c)
		panic(bare)
	})
	wake.Get(app, "/encode", func(_ context.Context, _ *none, c wake.Call[*world]) (secretMarshaler, error) {
		add(c)
		return secretMarshaler{bare}, nil
	})
	wake.Get(app, "/cause", func(_ context.Context, _ *none, c wake.Call[*world]) (textAnswer, error) {
		add(c)
		return textAnswer{}, &wake.Error{Status: 404, Detail: "no such thing", Err: bare}
	})
	wake.Get(app, "/huma500", func(_ context.Context, _ *none, c wake.Call[*world]) (textAnswer, error) {
		add(c)
		return textAnswer{}, huma.Error500InternalServerError(secret, bare)
	})
	wake.Get(app, "/resolver", func(_ context.Context, _ *secretResolver, c wake.Call[*world]) (textAnswer, error) {
		add(c)
		return textAnswer{}, nil
	})
	wake.Get(app, "/output", func(_ context.Context, _ *none, c wake.Call[*world]) (http.Handler, error) {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(bare) }), nil
	})
	wake.Stream(app, "/stream", func(context.Context, *none, wake.StreamCall[*world]) error { return bare })
	app.Handle("GET /handler", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(bare) }))
	huma.Get(app.Huma(), "/foreign", func(ctx context.Context, _ *none) (*struct{ Body string }, error) {
		add(wake.From[*world](ctx))
		return nil, bare
	})
	huma.Get(app.Huma(), "/foreignpanic", func(context.Context, *none) (*struct{ Body string }, error) { panic(bare) })
	huma.Get(app.Huma(), "/foreignwrapped", func(context.Context, *none) (*struct{ Body string }, error) {
		return nil, huma.Error500InternalServerError("sorry", bare)
	})

	srv := serveOnWire(t, app)
	for path, status := range map[string]string{
		"/error": "500", "/panic": "500", "/encode": "500", "/cause": "404", "/huma500": "500", "/resolver": "500", "/output": "",
		"/stream": "500", "/handler": "500", "/foreign": "500", "/foreignpanic": "500", "/foreignwrapped": "500",
	} {
		got := srv.talk("GET " + path + " HTTP/1.1\nHost: x\nConnection: close\n\n")
		if strings.Contains(got, "hunter2") {
			t.Errorf("GET %s tells the secret:\n%s", path, got)
		}
		if status != "" && !strings.HasPrefix(got, "HTTP/1.1 "+status+" ") {
			t.Errorf("GET %s: want %s:\n%s", path, status, got)
		}
	}
	w.expect(t)
}

type secretMarshaler struct{ err error }

func (s secretMarshaler) MarshalJSON() ([]byte, error) { return nil, s.err }

type secretResolver struct{}

func (*secretResolver) Resolve(huma.Context) []error { return []error{errors.New("password=hunter2")} }

func TestABare500IsLoggedWithItsRequestAndNamesIt(t *testing.T) {
	var logs logbook
	client, w := failWith(t, errors.New("disk on fire"), logs.option())
	res := client.Post("/", nil, "X-Request-Id", "r-4711")
	p := problemOf(t, res, http.StatusInternalServerError)
	if p.Instance != "urn:request:r-4711" {
		t.Errorf("instance %q", p.Instance)
	}
	w.expect(t)
}

func TestHumasStatusErrorsAreShown(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		detail string
	}{
		{huma.Error404NotFound("no such user"), 404, "no such user"},
		{huma.Error409Conflict("taken", &huma.ErrorDetail{Message: "is taken", Location: "path.name", Value: "hunter2"}), 409, "taken"},
		{fmt.Errorf("wrapped: %w", huma.Error403Forbidden("not yours")), 403, "not yours"},
		{teapot{}, 418, "short and stout"},
	} {
		client, w := failWith(t, c.err)
		res := client.Post("/", nil)
		p := problemOf(t, res, c.status)
		if p.Detail != c.detail || strings.Contains(string(res.Body), "hunter2") {
			t.Errorf("%v: %v", c.err, res)
		}
		w.expect(t)
	}
}

type teapot struct{}

func (teapot) Error() string  { return "short and stout" }
func (teapot) GetStatus() int { return http.StatusTeapot }

func TestAResolverTellsTheClientWhatItMeansFor(t *testing.T) {
	app, _ := newWorld()
	wake.Get(app, "/", func(context.Context, *pickyInput, wake.Call[*world]) (none, error) { return none{}, nil })
	client := waketest.Start(t, app)
	for query, want := range map[string]string{"detail": "must be even", "status": "must be odd"} {
		res := client.Get("/?kind=" + query)
		if !strings.Contains(string(res.Body), want) || res.Status >= 500 {
			t.Errorf("%s: %v, want %q", query, res, want)
		}
	}
}

type pickyInput struct {
	Kind string `query:"kind"`
}

func (p *pickyInput) Resolve(huma.Context) []error {
	if p.Kind == "detail" {
		return []error{&huma.ErrorDetail{Message: "must be even", Location: "query.kind"}}
	}
	return []error{wake.Errorf(http.StatusConflict, "must be odd")}
}

func TestNoPackageVariableOfHumaIsChanged(t *testing.T) {
	app, _ := newWorld()
	wake.Get(app, "/", func(context.Context, *none, wake.Call[*world]) (none, error) { return none{}, errors.New("x") })
	waketest.Start(t, app).Get("/")
	err := huma.NewError(http.StatusTeapot, "short", errors.New("stout"))
	var model *huma.ErrorModel
	if !errors.As(err, &model) || model.Detail != "short" || len(model.Errors) != 1 || model.Errors[0].Message != "stout" {
		t.Errorf("huma.NewError makes %#v", err)
	}
	if got := huma.NewErrorWithContext(nil, 418, "short").Error(); got != "short" {
		t.Errorf("huma.NewErrorWithContext makes %q", got)
	}
	if got := huma.GenerateOperationID(http.MethodGet, "/a/{b}", struct{}{}); got != "get-a-by-b" {
		t.Errorf("huma.GenerateOperationID makes %q", got)
	}
	if len(huma.DefaultFormats) != 2 {
		t.Errorf("huma.DefaultFormats has %d formats, want JSON twice", len(huma.DefaultFormats))
	}
}
