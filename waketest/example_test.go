package waketest_test

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/lifespan"
	"github.com/wake-go/wake/waketest"
)

type mailer struct{ sent []string }

func (m *mailer) send(to string) { m.sent = append(m.sent, to) }

var welcome = wake.Define("welcome", func(_ context.Context, m *mailer, to string) error {
	m.send(to)
	return nil
})

type signUpInput struct {
	Name string `path:"name"`
}

func signUp(_ context.Context, in *signUpInput, c wake.Call[*mailer]) (struct{}, error) {
	c.Tasks.Add(welcome.With(in.Name + "@example.test"))
	return struct{}{}, nil
}

func newMailApp() *wake.App[*mailer] {
	app := wake.New("Mail", "1.0", lifespan.Fixed(&mailer{}))
	wake.Post(app, "/sign-up/{name}", signUp)
	app.Tasks(welcome)
	return app
}

// Start runs the application with its own lifespan, until the test ends.
func ExampleStart() {
	_ = func(t *testing.T) {
		app := waketest.Start(t, newMailApp())
		if res := app.Post("/sign-up/Ada", nil); res.Status != http.StatusNoContent {
			t.Fatal(res)
		}
		// The welcome mail has been sent: look at what it did.
	}
}

// StartWith runs it with a state of fakes.
func ExampleStartWith() {
	_ = func(t *testing.T) {
		fake := &mailer{}
		app := waketest.StartWith(t, newMailApp(), lifespan.Fixed(fake))
		app.Post("/sign-up/Ada", nil)
		if !slices.Equal(fake.sent, []string{"Ada@example.test"}) {
			t.Errorf("sent to %q", fake.sent)
		}
	}
}

// Call tries one handler without an application.
func ExampleCall() {
	_ = func(t *testing.T) {
		fake := &mailer{}
		call, tasks := waketest.Call(t, fake)
		if _, err := signUp(t.Context(), &signUpInput{Name: "Ada"}, call); err != nil {
			t.Fatal(err)
		}
		if got := waketest.Added(tasks, welcome); !slices.Equal(got, []string{"Ada@example.test"}) {
			t.Errorf("mails to %q were added", got)
		}
		tasks.Run(t.Context()) // and this is what they do
	}
}

// Inside a testing/synctest bubble hours pass in no time.
func ExampleStart_synctest() {
	reminder := wake.Define("reminder", func(ctx context.Context, m *mailer, to string) error {
		time.Sleep(24 * time.Hour)
		m.send(to)
		return nil
	}, wake.Timeout(48*time.Hour))
	_ = func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			fake := &mailer{}
			app := newMailApp()
			wake.Post(app, "/remind/{name}", func(_ context.Context, in *signUpInput, c wake.Call[*mailer]) (struct{}, error) {
				c.Tasks.Add(reminder.With(in.Name))
				return struct{}{}, nil
			})
			client := waketest.StartWith(t, app, lifespan.Fixed(fake))
			client.Post("/remind/Ada", nil) // returns a day later
			if !slices.Equal(fake.sent, []string{"Ada"}) {
				t.Errorf("reminded %q", fake.sent)
			}
		})
	}
}

// The examples above are programs that compile; this runs what they show.
func TestTheExamplesHold(t *testing.T) {
	fake := &mailer{}
	waketest.StartWith(t, newMailApp(), lifespan.Fixed(fake)).Post("/sign-up/Ada", nil)
	call, tasks := waketest.Call(t, fake)
	if _, err := signUp(t.Context(), &signUpInput{Name: "Bob"}, call); err != nil {
		t.Fatal(err)
	}
	tasks.Run(t.Context())
	if want := []string{"Ada@example.test", "Bob@example.test"}; !slices.Equal(fake.sent, want) {
		t.Errorf("sent to %q, want %q", fake.sent, want)
	}
}
