package wake_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/getkin/kin-openapi/openapi3"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/lifespan"
	"github.com/wake-go/wake/waketest"
)

func listThings(context.Context, *none, wake.Call[*world]) ([]textAnswer, error) { return nil, nil }

// documented has one operation of each kind.
func documented() *wake.App[*world] {
	app, _ := newWorld(wake.Description("All of it."),
		wake.SecurityScheme("bearer", huma.SecurityScheme{Type: "http", Scheme: "bearer"}))
	wake.Get(app, "/things", listThings, wake.Tags("things"), wake.Describe("Lists *things*."))
	wake.Post(app, "/things/{id}", func(context.Context, *boundInput, wake.Call[*world]) (textAnswer, error) {
		return textAnswer{}, nil
	}, wake.Summary("Change a thing"), wake.Status(http.StatusCreated), wake.Errors(404, 409), wake.Security("bearer"))
	wake.Delete(app, "/things/{id}", func(context.Context, *none, wake.Call[*world]) (none, error) { return none{}, nil })
	wake.Put(app, "/upload", func(context.Context, *formInput, wake.Call[*world]) ([]byte, error) { return nil, nil })
	wake.Patch(app, "/page", func(context.Context, *none, wake.Call[*world]) (http.Handler, error) { return nil, nil })
	wake.Stream(app, "/events", func(context.Context, *none, wake.StreamCall[*world]) error { return nil })
	wake.Get(app, "/hidden", listThings, wake.Hidden())
	wake.Get(app, "/a-b", listThings)
	wake.Get(app, "/a/b", listThings)
	wake.Get(app, "/named", listThings, wake.Huma(func(o *huma.Operation) { o.OperationID = "my-own"; o.Deprecated = true }))
	router := newPart()
	wake.Include(app, "/one", router, func(w *world) *part { return &part{world: w} })
	wake.Include(app, "/two", router, func(w *world) *part { return &part{world: w} })
	return app
}

func TestTheDocumentIsValidOpenAPI31(t *testing.T) {
	res := waketest.Start(t, documented()).Get("/openapi.json")
	doc, err := openapi3.NewLoader().LoadFromData(res.Body)
	if err != nil {
		t.Fatalf("%v\n%s", err, res.Body)
	}
	if !doc.IsOpenAPI31OrLater() || doc.OpenAPI[:3] != "3.1" {
		t.Errorf("version %q", doc.OpenAPI)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Errorf("%v\n%s", err, res.Body)
	}
	if doc.Info.Title != "World" || doc.Info.Version != "1.0" || doc.Info.Description != "All of it." {
		t.Errorf("info %+v", doc.Info)
	}
	ids := map[string]string{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if other, taken := ids[op.OperationID]; taken {
				t.Errorf("%s %s and %s share the id %q", method, path, other, op.OperationID)
			}
			ids[op.OperationID] = method + " " + path
		}
	}
	if doc.Paths.Find("/hidden") != nil {
		t.Error("a hidden operation is in the document")
	}
	list := doc.Paths.Find("/things").Get
	if list.Summary != "List things" || list.Description != "Lists *things*." || !slices.Equal(list.Tags, []string{"things"}) {
		t.Errorf("the list is documented as %+v", list)
	}
	change := doc.Paths.Find("/things/{id}").Post
	if change.Summary != "Change a thing" || change.Security == nil || len((*change.Security)[0]["bearer"]) != 0 {
		t.Errorf("the change is documented as %+v", change)
	}
	for _, status := range []int{201, 404, 409, 422} {
		if change.Responses.Status(status) == nil {
			t.Errorf("the change has no answer %d", status)
		}
	}
	if named := doc.Paths.Find("/named").Get; named.OperationID != "my-own" || !named.Deprecated {
		t.Errorf("the operation changed by Huma is %+v", named)
	}
	for _, path := range []string{"/one/do", "/two/do"} {
		if doc.Paths.Find(path) == nil {
			t.Errorf("%s is not in the document", path)
		}
	}
}

func TestTypesOfTheSameNameAreTwoSchemas(t *testing.T) {
	app := wake.New("Same", "1.0", lifespan.Fixed(0))
	type Answer struct {
		A int `json:"a"`
	}
	wake.Get(app, "/a", func(context.Context, *none, wake.Call[int]) (Answer, error) { return Answer{}, nil })
	func() {
		type Answer struct {
			B int `json:"b"`
		}
		wake.Get(app, "/b", func(context.Context, *none, wake.Call[int]) (Answer, error) { return Answer{}, nil })
	}()
	doc, err := openapi3.NewLoader().LoadFromData(waketest.Start(t, app).Get("/openapi.json").Body)
	if err != nil {
		t.Fatal(err)
	}
	for path, property := range map[string]string{"/a": "a", "/b": "b"} {
		schema := doc.Paths.Find(path).Get.Responses.Status(200).Value.Content["application/json"].Schema.Value
		if schema.Properties[property] == nil {
			t.Errorf("the answer of %s has no property %q", path, property)
		}
	}
}

// Huma's pages fill caches without a lock; the race detector watches here.
func TestFirstRequestsOfTheDocumentMayComeAtOnce(t *testing.T) {
	client := waketest.Start(t, documented())
	var wg sync.WaitGroup
	var mu sync.Mutex
	bodies := map[string]map[string]bool{}
	for i := range 16 {
		path := []string{"/openapi.json", "/openapi.yaml", "/docs", "/openapi-3.0.json"}[i%4]
		wg.Go(func() {
			res := client.Get(path)
			mu.Lock()
			defer mu.Unlock()
			if bodies[path] == nil {
				bodies[path] = map[string]bool{}
			}
			bodies[path][fmt.Sprint(res.Status, string(res.Body))] = true
		})
	}
	wg.Wait()
	for path, answers := range bodies {
		for answer := range answers {
			if len(answers) != 1 || answer[:3] != "200" {
				t.Errorf("%s: %d answers, one is %.100s", path, len(answers), answer)
			}
		}
	}
}

func TestAnswersHaveNoLinkMadeFromTheHostHeader(t *testing.T) {
	app, _ := newWorld()
	wake.Get(app, "/", func(context.Context, *none, wake.Call[*world]) (textAnswer, error) { return textAnswer{"x"}, nil })
	res := waketest.Start(t, app).Get("/", "X-Forwarded-Host", "evil.example")
	var got map[string]any
	if err := json.Unmarshal(res.Body, &got); err != nil || len(got) != 1 || res.Header.Get("Link") != "" {
		t.Errorf("got %v, %v", res, res.Header)
	}
}
