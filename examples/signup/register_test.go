package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"net"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/memory"
	"github.com/wake-go/wake/examples/signup/internal/crm"
	"github.com/wake-go/wake/examples/signup/internal/progress"
	"github.com/wake-go/wake/waketest"
)

const registered = `{"message":"User registered. Check your email soon!"}`

// register with a picture, unless it is nil.
func post(t *testing.T, client *waketest.Client, username string, picture []byte) *waketest.Response {
	t.Helper()
	if picture == nil {
		return client.Post("/register/"+username, nil)
	}
	body, contentType := form(t, "picture", picture)
	return client.Post("/register/"+username, body, "Content-Type", contentType)
}

// mustRegister registers a user; the queued tasks wait.
func mustRegister(t *testing.T, client *waketest.Client, username string, picture []byte) {
	t.Helper()
	res := post(t, client, username, picture)
	if res.Status != http.StatusOK || strings.TrimSpace(string(res.Body)) != registered {
		t.Fatalf("POST /register/%s: %s", username, res)
	}
}

// dataOf returns GET /data with its times replaced by T, after a look at them.
func dataOf(t *testing.T, client *waketest.Client) string {
	t.Helper()
	res := client.Get("/data")
	if res.Status != http.StatusOK || res.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("GET /data: %s", res)
	}
	times := regexp.MustCompile(`"registered_at":"([^"]*)"`)
	for _, found := range times.FindAllSubmatch(res.Body, -1) {
		at, err := time.Parse(time.RFC3339, string(found[1]))
		if age := time.Since(at); err != nil || age < 0 || age > time.Minute {
			t.Errorf("registered_at %s: %v", found[1], err)
		}
	}
	return strings.TrimSpace(string(times.ReplaceAll(res.Body, []byte(`"registered_at":"T"`))))
}

func expectData(t *testing.T, client *waketest.Client, users ...string) {
	t.Helper()
	if got, want := dataOf(t, client), `{"users":[`+strings.Join(users, ",")+`]}`; got != want {
		t.Errorf("GET /data:\n%s\nwant:\n%s", got, want)
	}
}

func TestRegistrationWithPicture(t *testing.T) {
	t.Parallel()
	client, state := start(t, config{})
	expectData(t, client)
	mustRegister(t, client, "Ada", jpegOf(t, photo(900, 600)))
	expectData(t, client, `{"username":"Ada","registered_at":"T","logged":true,"emailed":false,"crm":false,"picture":null}`)
	client.RunQueue()

	expectData(t, client, `{"username":"Ada","registered_at":"T","logged":true,"emailed":true,"crm":true,"picture":"/pictures/Ada"}`)
	if got, want := state.CRMStub.Contacts(), []crm.Contact{{Username: "Ada", Email: "Ada@example.test"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("the CRM has %v, want %v", got, want)
	}
	var mail Mail
	client.Get("/mail").JSON(&mail)
	if len(mail.Messages) != 1 || mail.Messages[0].Subject != "Welcome, Ada!" || !reflect.DeepEqual(mail.Messages[0].To, []string{"Ada@example.test"}) {
		t.Errorf("mail %+v", mail)
	}
	thumbnail := client.Get("/pictures/Ada")
	config, format, err := image.DecodeConfig(bytes.NewReader(thumbnail.Body))
	if err != nil || format != "jpeg" || config.Width != 256 || config.Height != 170 || thumbnail.Header.Get("Content-Type") != "image/jpeg" {
		t.Errorf("thumbnail %s of %d × %d, type %q: %v", format, config.Width, config.Height, thumbnail.Header.Get("Content-Type"), err)
	}
	expectSteps(t, state, "Ada",
		"log_registration running", "log_registration done",
		"send_welcome_email running", "send_welcome_email done",
		"resize_picture running", "resize_picture done",
		"update_crm running", "update_crm done")
}

func TestRegistrationWithoutBody(t *testing.T) {
	t.Parallel()
	client, state := start(t, config{})
	mustRegister(t, client, "Ada", nil)
	if res := client.Post("/register/grace_hopper-2", "", "Content-Type", "application/x-www-form-urlencoded"); res.Status != http.StatusOK {
		t.Errorf("an empty form as curl sends it: %s", res)
	}
	if res := client.Post("/register/"+strings.Repeat("x", 32), nil); res.Status != http.StatusOK {
		t.Errorf("a long name: %s", res)
	}
	client.RunQueue()
	expectData(t, client,
		fmt.Sprintf(`{"username":"%s","registered_at":"T","logged":true,"emailed":true,"crm":true,"picture":null}`, strings.Repeat("x", 32)),
		`{"username":"grace_hopper-2","registered_at":"T","logged":true,"emailed":true,"crm":true,"picture":null}`,
		`{"username":"Ada","registered_at":"T","logged":true,"emailed":true,"crm":true,"picture":null}`)
	expectSteps(t, state, "Ada",
		"log_registration running", "log_registration done",
		"send_welcome_email running", "send_welcome_email done",
		"update_crm running", "update_crm done")
	if res := client.Get("/pictures/Ada"); res.Status != http.StatusNotFound {
		t.Errorf("picture of nobody: %s", res)
	}
}

func TestTakenUsernameAddsNothing(t *testing.T) {
	t.Parallel()
	client, state := start(t, config{})
	mustRegister(t, client, "Ada", nil)
	client.RunQueue()
	before := dataOf(t, client)
	for username, picture := range map[string][]byte{"Ada": nil, "ada": nil, "ADA": pngOf(t, photo(40, 40))} {
		res := post(t, client, username, picture)
		var problem struct {
			Status int
			Detail string
		}
		res.JSON(&problem)
		if res.Status != http.StatusConflict || res.Header.Get("Content-Type") != "application/problem+json" ||
			problem.Status != res.Status || !strings.Contains(problem.Detail, username) {
			t.Errorf("%s: %s", username, res)
		}
	}
	mails, contacts, pictures := waketest.Queued(client, SendWelcomeEmail), waketest.Queued(client, UpdateCRM), waketest.Queued(client, ResizePicture)
	if len(mails) != 1 || len(contacts) != 1 || len(pictures) != 0 {
		t.Errorf("the queue has mails to %q, contacts %q and pictures of %q; want those of one registration", mails, contacts, pictures)
	}
	client.RunQueue()
	if after := dataOf(t, client); after != before {
		t.Errorf("before: %s\nafter:  %s", before, after)
	}
	if mails, contacts := len(state.Mailbox.Messages()), len(state.CRMStub.Contacts()); mails != 1 || contacts != 1 {
		t.Errorf("%d mails and %d contacts, want 1 and 1", mails, contacts)
	}
}

func TestOneFailingTaskDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	crmServer := newCRM(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "secret of the CRM", http.StatusUnprocessableEntity)
	})
	client, state := start(t, config{smtp: deadAddress(t), crm: crmServer}, waketest.AllowTaskErrors())
	mustRegister(t, client, "Ada", pngOf(t, photo(300, 200)))
	client.RunQueue()

	expectData(t, client, `{"username":"Ada","registered_at":"T","logged":true,"emailed":false,"crm":false,"picture":"/pictures/Ada"}`)
	expectSteps(t, state, "Ada",
		"log_registration running", "log_registration done",
		"send_welcome_email running", "send_welcome_email retrying",
		"resize_picture running", "resize_picture done",
		"update_crm running", "update_crm failed")
	if res := client.Get("/mail"); res.Status != http.StatusNotFound {
		t.Errorf("GET /mail with a server elsewhere: %s", res)
	}
}

// deadAddress is one where nobody listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// expectSteps looks at the progress of each step of a user whose tasks have ended, and that it tells nothing of an
// error's text. Steps run beside each other.
func expectSteps(t *testing.T, state *State, username string, want ...string) {
	t.Helper()
	news, err := state.Progress.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	defer news.Close()
	var got []string
	for range len(news.Events) {
		event := <-news.Events
		if event.Username != username {
			continue
		}
		if news := event.Step + " " + string(event.State); !slices.Contains(got, news) { // an attempt more changes nothing
			got = append(got, news)
		}
		failed := event.State == progress.Failed || event.State == progress.Retrying
		if failed != (event.Detail != "") || regexp.MustCompile(`secret|refused|503|127\.0`).MatchString(event.Detail) {
			t.Errorf("%s %s says %q", event.Step, event.State, event.Detail)
		}
	}
	byStep := func(a, b string) int {
		return strings.Compare(strings.Fields(a)[0], strings.Fields(b)[0])
	}
	slices.SortStableFunc(got, byStep)
	slices.SortStableFunc(want, byStep)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("progress:\n%q\nwant:\n%q", got, want)
	}
}

func TestEventsReachTheBrowser(t *testing.T) {
	t.Parallel()
	client, _ := start(t, config{})
	res, err := client.HTTP().Get(client.URL("/events"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	mustRegister(t, client, "Ada", nil)
	lines := bufio.NewScanner(res.Body)
	next := func() (line string) {
		if !lines.Scan() {
			t.Fatalf("the stream has ended: %v", lines.Err())
		}
		return lines.Text()
	}
	if name, process := next(), next(); name != "event: process" || !strings.HasPrefix(process, `data: "20`) || next() != "" {
		t.Errorf("the first event is %q with %q", name, process)
	}
	first, ok := strings.CutPrefix(next(), "data: ")
	var event progress.Event
	if err := json.Unmarshal([]byte(first), &event); !ok || err != nil || event.Username != "Ada" || event.State != progress.Running {
		t.Errorf("event %q: %v", first, err)
	}
}

func TestOpenAPIDocumentsTheFormAsOptional(t *testing.T) {
	t.Parallel()
	client, _ := start(t, config{})
	var doc struct {
		Paths map[string]struct {
			Post struct {
				RequestBody struct {
					Required bool
					Content  map[string]struct {
						Schema struct {
							Required   []string
							Properties map[string]struct{ Format string }
						}
					}
				}
				Responses map[string]any
			}
		}
	}
	client.Get("/openapi.json").JSON(&doc)
	post := doc.Paths["/register/{username}"].Post
	schema := post.RequestBody.Content["multipart/form-data"].Schema
	if post.RequestBody.Required || len(schema.Required) > 0 || schema.Properties["picture"].Format != "binary" {
		t.Errorf("request body %+v", post.RequestBody)
	}
	for _, status := range []string{"200", "409", "413", "415", "422"} {
		if post.Responses[status] == nil {
			t.Errorf("status %s is not documented", status)
		}
	}
}

func TestStartRefuses(t *testing.T) {
	t.Parallel()
	file := queueIn(t.TempDir())
	for name, test := range map[string]struct {
		cfg   config
		queue wake.Option
		want  string
	}{
		"postgres":  {config{}, wake.Queue("postgres://ada:secret@localhost/signup"), "PostgreSQL"},
		"directory": {config{}, wake.Queue("sqlite:" + t.TempDir()), "directory"},
		"smtp":      {config{smtp: "localhost"}, file, "SIGNUP_SMTP"},
		"crm":       {config{crm: "localhost:1"}, file, "SIGNUP_CRM"},
		"no file": {config{}, wake.OpenStore(func(context.Context) (durable.Store, error) {
			return memory.New(memory.Config{}), nil
		}), "WAKE_QUEUE"},
	} {
		err := newApp(test.cfg).Run(t.Context(), test.queue, wake.AdminAddr("off"))
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want an error about %s", name, err, test.want)
		}
	}
}
