package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/examples/signup/internal/catcher"
	"github.com/wake-go/wake/examples/signup/internal/users"
)

// Data is everybody who signed up.
type Data struct {
	Users []users.User `json:"users" nullable:"false" doc:"newest first"`
}

func data(ctx context.Context, _ *struct{}, c wake.Call[*State]) (Data, error) {
	all, err := c.State.Users.All(ctx)
	return Data{all}, err
}

// Mail is what the built-in catcher caught.
type Mail struct {
	Messages []catcher.Message `json:"messages" nullable:"false" doc:"newest first"`
	Note     string            `json:"note,omitempty" doc:"Where else there may be mail."`
}

func mail(ctx context.Context, _ *struct{}, c wake.Call[*State]) (Mail, error) {
	if c.State.Mailbox == nil {
		return Mail{}, wake.Errorf(http.StatusNotFound, "The mail goes to the server that SIGNUP_SMTP names: look there.")
	}
	m := Mail{Messages: c.State.Mailbox.Messages()}
	if wake.Role(ctx) == wake.RoleWeb {
		m.Note = "Another process sends the mail, to a catcher of its own. Set SIGNUP_SMTP for both to see it in one place."
	}
	return m, nil
}

// PictureInput names a user.
type PictureInput struct {
	Username string `path:"username"`
}

func picture(ctx context.Context, in *PictureInput, c wake.Call[*State]) ([]byte, error) {
	small, err := c.State.Users.Thumbnail(ctx, in.Username)
	if errors.Is(err, users.ErrNoPicture) {
		return nil, wake.Errorf(http.StatusNotFound, "There is no picture of this user, or not yet.")
	}
	h := c.Response.Header()
	h.Set("Content-Type", http.DetectContentType(small))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "private, max-age=60")
	return small, err
}

// taskPath is where a queued task shows its state.
const taskPath = "/tasks/{id}"

// linkTask tells the page where to follow a queued task, whichever process runs it.
func linkTask(r *wake.Response, name string, id durable.ID) {
	path := strings.ReplaceAll(taskPath, "{id}", id.String())
	r.Header().Add("Link", fmt.Sprintf(`<%s>; rel="monitor"; title=%q`, path, name))
}

// whoeverKnowsTheID may see a task: nobody guesses an id, and only who registered the user is told.
func whoeverKnowsTheID(context.Context, wake.Call[*State], *durable.Task) bool { return true }

// events tells of every change of every task that this process runs, beginning with the latest ones.
func events(ctx context.Context, _ *struct{}, c wake.StreamCall[*State]) error {
	news, err := c.State.Progress.Subscribe()
	if err != nil {
		return &wake.Error{Status: http.StatusServiceUnavailable, Detail: "The progress cannot be watched now. Try again.", Err: err}
	}
	defer news.Close()
	// So that the page knows it is connected, and whether it is to another process than before.
	if err := c.Send(wake.Event{Name: "process", Data: c.State.Started}); err != nil {
		return err
	}
	for {
		select {
		case event, open := <-news.Events:
			if !open {
				return nil
			}
			if err := c.Send(event); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}
