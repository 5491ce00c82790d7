package wake_test

import (
	"bytes"
	"context"
	"io"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/waketest"
)

type boundInput struct {
	ID      int      `path:"id" minimum:"1"`
	Limit   int      `query:"limit" default:"10" maximum:"100"`
	Tags    []string `query:"tag,explode"`
	Trace   string   `header:"X-Trace"`
	Session string   `cookie:"session"`
	Body    struct {
		Name  string   `json:"name" minLength:"2" maxLength:"8"`
		Email string   `json:"email,omitempty" format:"email"`
		Marks []int    `json:"marks,omitempty" maxItems:"3"`
		Where *boundAt `json:"where,omitempty"`
	}
}

type boundAt struct {
	Lat float64 `json:"lat"`
}

func TestInputIsBoundFromPathQueryHeaderCookieAndBody(t *testing.T) {
	app, _ := newWorld()
	var got boundInput
	wake.Post(app, "/things/{id}", func(_ context.Context, in *boundInput, _ wake.Call[*world]) (none, error) {
		got = *in
		return none{}, nil
	})
	res := waketest.Start(t, app).Post("/things/7?tag=a&tag=b&limit=5",
		map[string]any{"name": "Ada", "marks": []int{1, 2}, "where": map[string]any{"lat": 1.5}},
		"X-Trace", "t-1", "Cookie", "session=s-1; other=x")
	expectStatus(t, res, http.StatusNoContent)
	if got.ID != 7 || got.Limit != 5 || !slices.Equal(got.Tags, []string{"a", "b"}) || got.Trace != "t-1" || got.Session != "s-1" {
		t.Errorf("bound parameters: %+v", got)
	}
	if got.Body.Name != "Ada" || !slices.Equal(got.Body.Marks, []int{1, 2}) || got.Body.Where == nil || got.Body.Where.Lat != 1.5 {
		t.Errorf("bound body: %+v", got.Body)
	}
}

func TestDefaultsFillWhatTheClientLeavesOut(t *testing.T) {
	app, _ := newWorld()
	type input struct {
		Limit int `query:"limit" default:"10"`
	}
	wake.Get(app, "/", func(_ context.Context, in *input, _ wake.Call[*world]) (int, error) { return in.Limit, nil })
	if res := waketest.Start(t, app).Get("/"); string(res.Body) != "10\n" {
		t.Errorf("got %v", res)
	}
}

func TestAllMistakesOfAnInputAreToldAtOnceAndNoValueIsEchoed(t *testing.T) {
	app, w := newWorld()
	wake.Post(app, "/things/{id}", func(_ context.Context, _ *boundInput, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(noted.With("ran"))
		return none{}, nil
	})
	const secret = "hunter2-is-too-long"
	res := waketest.Start(t, app).Post("/things/0?limit=4711",
		map[string]any{"name": secret, "email": secret, "marks": []int{1, 2, 3, 4}})
	p := problemOf(t, res, http.StatusUnprocessableEntity)
	var where []string
	for _, e := range p.Errors {
		where = append(where, e.Location)
		if e.Value != nil {
			t.Errorf("the value of %s is echoed: %v", e.Location, e.Value)
		}
		if e.Message == "" {
			t.Errorf("%s is refused without a reason", e.Location)
		}
	}
	slices.Sort(where)
	want := []string{"body.email", "body.marks", "body.name", "path.id", "query.limit"}
	if !slices.Equal(where, want) {
		t.Errorf("told of %q, want %q", where, want)
	}
	if bytes.Contains(res.Body, []byte(secret)) || bytes.Contains(res.Body, []byte("4711")) {
		t.Errorf("a value is echoed: %s", res.Body)
	}
	w.expect(t)
}

func TestInputsThatAreRefused(t *testing.T) {
	app, w := newWorld()
	wake.Post(app, "/things/{id}", func(_ context.Context, _ *boundInput, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(noted.With("ran"))
		return none{}, nil
	})
	type need struct {
		Q string `query:"q" required:"true"`
	}
	wake.Get(app, "/need", func(context.Context, *need, wake.Call[*world]) (none, error) { return none{}, nil })
	client := waketest.Start(t, app)
	const good, secret = `{"name":"Ada"}`, "hunter2"
	for _, c := range []struct {
		name, path, body string
		header           []string
		status           int
		location         string
	}{
		{"not a number", "/things/" + secret, good, nil, 422, "path.id"},
		{"number too large", "/things/99999999999999999999999", good, nil, 422, "path.id"},
		{"query not a number", "/things/1?limit=" + secret, good, nil, 422, "query.limit"},
		{"unknown field", "/things/1", `{"name":"Ada","admin":"` + secret + `"}`, nil, 422, "body.admin"},
		{"missing field", "/things/1", `{}`, nil, 422, "body"},
		{"wrong type", "/things/1", `{"name":["` + secret + `"]}`, nil, 422, "body.name"},
		{"no JSON", "/things/1", secret, nil, 400, "body"},
		{"JSON cut off", "/things/1", `{"name":"` + secret, nil, 400, "body"},
		{"two documents", "/things/1", `{"name":"Ada"}{"name":"` + secret + `"}`, nil, 400, "body"},
		{"null", "/things/1", `null`, nil, 422, "body"},
		{"no body", "/things/1", "", nil, 400, ""},
		{"another media type", "/things/1", good, []string{"Content-Type", "text/" + secret}, 415, "body"},
	} {
		t.Run(c.name, func(t *testing.T) {
			header := c.header
			if header == nil {
				header = []string{"Content-Type", "application/json"}
			}
			res := client.Post(c.path, c.body, header...)
			p := problemOf(t, res, c.status)
			if c.location != "" && (len(p.Errors) == 0 || p.Errors[0].Location != c.location) {
				t.Errorf("errors %+v, want one at %s", p.Errors, c.location)
			}
			if strings.Contains(string(res.Body), secret) {
				t.Errorf("the value is echoed: %s", res.Body)
			}
		})
	}
	problemOf(t, client.Get("/need"), http.StatusUnprocessableEntity)
	w.expect(t)
}

type formInput struct {
	RawBody huma.MultipartFormFiles[struct {
		Title   string        `form:"title" minLength:"2"`
		Picture huma.FormFile `form:"picture" contentType:"text/plain" required:"true"`
	}]
}

func formBody(t *testing.T, fields map[string]string, file string) (io.Reader, string) {
	t.Helper()
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	for name, value := range fields {
		if err := m.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	if file != "" {
		f, err := m.CreatePart(map[string][]string{
			"Content-Disposition": {`form-data; name="picture"; filename="p.txt"`}, "Content-Type": {"text/plain"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, file); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	return &b, m.FormDataContentType()
}

func TestAMultipartFormIsBound(t *testing.T) {
	app, w := newWorld()
	wake.Post(app, "/upload", func(_ context.Context, in *formInput, c wake.Call[*world]) (none, error) {
		form := in.RawBody.Data()
		text, err := io.ReadAll(form.Picture)
		if err != nil {
			return none{}, err
		}
		c.Tasks.Add(noted.With(form.Title + ":" + string(text)))
		return none{}, nil
	})
	client := waketest.Start(t, app)
	body, contentType := formBody(t, map[string]string{"title": "Sea"}, "waves")
	expectStatus(t, client.Post("/upload", body, "Content-Type", contentType), http.StatusNoContent)
	w.expect(t, "Sea:waves")

	body, contentType = formBody(t, map[string]string{"title": "x"}, "")
	p := problemOf(t, client.Post("/upload", body, "Content-Type", contentType), http.StatusUnprocessableEntity)
	if len(p.Errors) != 1 || p.Errors[0].Location != "picture" {
		t.Errorf("told of %+v, want the picture", p.Errors)
	}
	body, contentType = formBody(t, map[string]string{"title": "x"}, "waves")
	p = problemOf(t, client.Post("/upload", body, "Content-Type", contentType), http.StatusUnprocessableEntity)
	if len(p.Errors) != 1 || p.Errors[0].Location != "form.title" {
		t.Errorf("told of %+v, want the title", p.Errors)
	}
	problemOf(t, client.Post("/upload", "no form", "Content-Type", "multipart/form-data; boundary=x"), http.StatusUnprocessableEntity)
	w.expect(t, "Sea:waves")
}

func TestPathValuesAreDecodedOnce(t *testing.T) {
	app, _ := newWorld()
	type input struct {
		Name string `path:"name"`
	}
	wake.Get(app, "/users/{name}", func(_ context.Context, in *input, _ wake.Call[*world]) (string, error) { return in.Name, nil })
	client := waketest.Start(t, app)
	for path, want := range map[string]string{
		"/users/Ada": "Ada", "/users/a%2Fb": "a/b", "/users/%252F": "%2F", "/users/%C3%84": "Ä", "/users/a+b": "a+b", "/users/%2E%2E": "..",
	} {
		var got string
		res := client.Get(path)
		if res.Status != http.StatusOK {
			t.Errorf("GET %s: %v", path, res)
			continue
		}
		if res.JSON(&got); got != want {
			t.Errorf("GET %s bound %q, want %q", path, got, want)
		}
	}
}
