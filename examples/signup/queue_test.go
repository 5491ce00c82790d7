package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"log/slog"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/examples/signup/internal/catcher"
	"github.com/wake-go/wake/examples/signup/internal/users"
	"github.com/wake-go/wake/waketest"
)

// followed are the states of the tasks to which the answer of a registration links.
func followed(t *testing.T, client *waketest.Client, answer *waketest.Response) map[string]wake.TaskView {
	t.Helper()
	links := regexp.MustCompile(`^<(/tasks/[^>]+)>; rel="monitor"; title="([^"]+)"$`)
	views := map[string]wake.TaskView{}
	for _, link := range answer.Header.Values("Link") {
		found := links.FindStringSubmatch(link)
		if found == nil {
			t.Fatalf("the link %q is not as the page needs it", link)
		}
		var view wake.TaskView
		res := client.Get(found[1])
		if res.Status != http.StatusOK {
			t.Fatalf("%s: %s", link, res)
		}
		res.JSON(&view)
		if view.Kind != found[2] {
			t.Errorf("%s is a task %q", link, view.Kind)
		}
		views[view.Kind] = view
	}
	return views
}

func statesOf(views map[string]wake.TaskView) map[string]string {
	states := map[string]string{}
	for name, view := range views {
		states[name] = view.State
	}
	return states
}

func TestTheAnswerTellsWhereToFollowTheTasks(t *testing.T) {
	t.Parallel()
	client, _ := start(t, config{})
	for username, picture := range map[string][]byte{"Ada": nil, "Grace": pngOf(t, photo(40, 30))} {
		answer := post(t, client, username, picture)
		want := map[string]string{"send_welcome_email": "ready", "update_crm": "ready"}
		if picture != nil {
			want["resize_picture"] = "ready"
		}
		if got := statesOf(followed(t, client, answer)); !reflect.DeepEqual(got, want) {
			t.Errorf("the tasks of %s before they run: %v, want %v", username, got, want)
		}
		client.RunQueue()
		for name, view := range followed(t, client, answer) {
			if view.State != "succeeded" || view.Attempt != 1 {
				t.Errorf("%s of %s: %+v", name, username, view)
			}
		}
	}
}

// A mail server that is away keeps the mail waiting; what else there is to do does not wait with it.
func TestAnOutageOfTheMailServerLosesNoMail(t *testing.T) {
	t.Parallel()
	server, mailbox := startMailServer(t)
	server.be(away)
	client, state := start(t, config{smtp: server.addr()}, waketest.AllowTaskErrors())
	answer := post(t, client, "Ada", nil)
	client.RunQueue()
	mail := followed(t, client, answer)["send_welcome_email"]
	if mail.State != "scheduled" || mail.Attempt != 1 || !mail.RunAt.After(mail.CreatedAt) || mail.Error != "" {
		t.Errorf("the mail after the first attempt: %+v", mail)
	}
	expectData(t, client, `{"username":"Ada","registered_at":"T","logged":true,"emailed":false,"crm":true,"picture":null}`)
	for range 5 { // a minute or so
		client.Advance(time.Minute)
		client.RunQueue()
	}
	server.be(up)
	client.Advance(5 * time.Minute)
	client.RunQueue()
	expectData(t, client, `{"username":"Ada","registered_at":"T","logged":true,"emailed":true,"crm":true,"picture":null}`)
	expectMails(t, mailbox, 1, "Ada")
	steps := stepsOf(t, state, "Ada", "send_welcome_email")
	if n := len(steps); n < 6 || steps[n-1] != "done" || !slices.Contains(steps, "retrying") || slices.Contains(steps, "failed") {
		t.Errorf("the page saw the mail %q", steps)
	}
}

func stepsOf(t *testing.T, state *State, username, step string) (states []string) {
	t.Helper()
	news, err := state.Progress.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	defer news.Close()
	for range len(news.Events) {
		if event := <-news.Events; event.Username == username && event.Step == step {
			states = append(states, string(event.State))
		}
	}
	return states
}

// What no other attempt can change is not tried again.
func TestARefusalIsFinal(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	crmServer := newCRM(t, func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		http.Error(w, "no such field", http.StatusUnprocessableEntity)
	})
	client, _ := start(t, config{crm: crmServer}, waketest.AllowTaskErrors())
	answer := post(t, client, "Ada", nil)
	client.RunQueue()
	client.Advance(24 * time.Hour)
	client.RunQueue()
	view := followed(t, client, answer)["update_crm"]
	if view.State != "dead" || calls.Load() != 1 || strings.Contains(view.Error, "field") {
		t.Errorf("after %d calls: %+v", calls.Load(), view)
	}
}

// A task that was cut off between its mark and its end runs again, and does nothing.
func TestWhatIsMarkedIsNotDoneAgain(t *testing.T) {
	t.Parallel()
	client, state := start(t, config{})
	mustRegister(t, client, "Ada", nil)
	for _, mark := range []func(context.Context, users.Execer, string) error{users.MarkEmailed, users.MarkCRM} {
		if err := mark(t.Context(), databaseOf(client), "Ada"); err != nil {
			t.Fatal(err)
		}
	}
	client.RunQueue()
	if mails, contacts := state.Mailbox.Messages(), state.CRMStub.Contacts(); len(mails)+len(contacts) > 0 {
		t.Errorf("mails %v and contacts %v", mails, contacts)
	}
}

// A user who has been deleted meanwhile is nobody to try again for.
func TestTasksOfADeletedUserEnd(t *testing.T) {
	t.Parallel()
	client, _ := start(t, config{}, waketest.AllowTaskErrors())
	answer := post(t, client, "Ada", pngOf(t, photo(40, 30)))
	if _, err := databaseOf(client).ExecContext(t.Context(), `DELETE FROM users`); err != nil {
		t.Fatal(err)
	}
	client.RunQueue()
	want := map[string]string{"send_welcome_email": "dead", "update_crm": "dead", "resize_picture": "succeeded"}
	if got := statesOf(followed(t, client, answer)); !reflect.DeepEqual(got, want) {
		t.Errorf("tasks %v, want %v", got, want)
	}
}

func databaseOf(client *waketest.Client) *sql.DB {
	return client.Queue().Store().(interface{ DB() *sql.DB }).DB()
}

// A registration that cannot be stored is refused as a whole, and can be tried again.
func TestABusyDatabaseIsNoPromise(t *testing.T) {
	t.Parallel()
	client, _ := start(t, config{}, waketest.With(wake.QueueConfig(durable.QueueConfig{CommitTimeout: 50 * time.Millisecond})))
	lock, err := databaseOf(client).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	res := post(t, client, "Ada", nil)
	if res.Status != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" || res.Header.Get("Link") != "" {
		t.Errorf("answer %s, header %v", res, res.Header)
	}
	if err := lock.Rollback(); err != nil {
		t.Fatal(err)
	}
	client.RunQueue()
	mails := waketest.Queued(client, SendWelcomeEmail)
	var data struct{ Users []users.User }
	client.Get("/data").JSON(&data)
	if len(mails) != len(data.Users) {
		t.Errorf("mails to %q, users %v: want both or none", mails, data.Users)
	}
	if len(mails) == 0 {
		mustRegister(t, client, "Ada", nil)
	}
}

// A task that the queue does not take takes the user's row with it.
func TestThereIsNoUserWithoutTheTasks(t *testing.T) {
	t.Parallel()
	client, _ := start(t, config{}, waketest.With(wake.QueueConfig(durable.QueueConfig{MaxPayload: 2})))
	for _, picture := range [][]byte{nil, pngOf(t, photo(40, 30))} {
		if res := post(t, client, "Ada", picture); res.Status != http.StatusInternalServerError {
			t.Errorf("answer %s", res)
		}
	}
	expectData(t, client)
}

func TestTheMailOfAWebProcessIsElsewhere(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t, config{}, wake.NoWorkers())
	defer http.DefaultClient.CloseIdleConnections()
	res, err := http.Get("http://" + addr + "/mail")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var mail Mail
	if err := json.NewDecoder(res.Body).Decode(&mail); err != nil || !strings.Contains(mail.Note, "SIGNUP_SMTP") {
		t.Errorf("GET /mail says %q: %v", mail.Note, err)
	}
}

// expectMails wants a mail to each user, and nobody else, delivered at most so many times.
func expectMails(t *testing.T, mailbox *catcher.Catcher, deliveries int, usernames ...string) {
	t.Helper()
	want := map[string]bool{}
	for _, username := range usernames {
		want[username+"@example.test"] = true
	}
	for _, message := range mailbox.Messages() {
		if to := strings.Join(message.To, " "); !want[to] {
			t.Errorf("unexpected mail to %s", to)
		} else {
			delete(want, to)
		}
		if message.Deliveries > deliveries {
			t.Errorf("the mail to %v was delivered %d times, want at most %d", message.To, message.Deliveries, deliveries)
		}
	}
	for to := range want {
		t.Errorf("no mail to %s", to)
	}
}

func startMailServer(t *testing.T) (*mailServer, *catcher.Catcher) {
	t.Helper()
	mailbox, err := catcher.Start(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	server := newMailServer(t, mailbox.Addr())
	t.Cleanup(func() {
		server.close()
		if err := mailbox.Close(); err != nil {
			t.Error(err)
		}
	})
	return server, mailbox
}
