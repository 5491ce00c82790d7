package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/examples/signup/internal/crm"
	"github.com/wake-go/wake/examples/signup/internal/mailer"
	"github.com/wake-go/wake/examples/signup/internal/progress"
	"github.com/wake-go/wake/examples/signup/internal/thumbnail"
	"github.com/wake-go/wake/examples/signup/internal/users"
)

// thumbnailSide is the longest side of a resized picture, in pixels.
const thumbnailSide = 256

// The tasks of a registration. Their argument is the username. Each leaves its mark in the database when it is done.
//
// All but the first are queued, and so may run more than once: after a crash, or when the answer of a server is lost.
// Mail and CRM calls carry a key by which the other side knows them again, and what is marked is not done again.
var (
	LogRegistration  = define("log_registration", logRegistration)
	SendWelcomeEmail = define("send_welcome_email", sendWelcomeEmail, patient...)
	ResizePicture    = define("resize_picture", resizePicture, wake.Lane("cpu"), wake.MaxAttempts(3))
	UpdateCRM        = define("update_crm", updateCRM, patient...)
)

// patient is how servers elsewhere are dealt with: soon again at first, then every quarter of an hour, for a day.
var patient = []wake.TaskOption{
	wake.Timeout(30 * time.Second),
	wake.MaxAttempts(100),
	wake.Backoff(durable.Exponential(time.Second, 15*time.Minute)),
}

func logRegistration(ctx context.Context, s *State, username string) error {
	slog.InfoContext(ctx, "user registered", "username", username)
	return mark(ctx, username, users.MarkLogged)
}

func sendWelcomeEmail(ctx context.Context, s *State, username string) error {
	user, err := s.Users.Get(ctx, username)
	if err != nil || user.Emailed {
		return err
	}
	if err := s.Mail.SendWelcome(ctx, username); err != nil {
		return err
	}
	return mark(ctx, username, users.MarkEmailed)
}

func resizePicture(ctx context.Context, s *State, username string) error {
	upload, err := s.Users.Upload(ctx, username)
	if errors.Is(err, users.ErrNoPicture) {
		return nil // resized already
	}
	if err != nil {
		return err
	}
	durable.Progress(ctx, 1, 3, "resizing")
	small, err := thumbnail.Resize(upload, thumbnailSide)
	if err != nil {
		return fmt.Errorf("%w: %w", errPicture, err)
	}
	durable.Progress(ctx, 2, 3, "storing")
	return s.Users.SetPicture(ctx, username, small)
}

func updateCRM(ctx context.Context, s *State, username string) error {
	user, err := s.Users.Get(ctx, username)
	if err != nil || user.CRM {
		return err
	}
	contact := crm.Contact{Username: username, Email: mailer.Address(username)}
	if err := s.CRM.Add(ctx, contact); err != nil {
		return err
	}
	return mark(ctx, username, users.MarkCRM)
}

// mark notes in the database that a task is done. Marks that come at the same time are one commit.
func mark(ctx context.Context, username string, set func(context.Context, users.Execer, string) error) error {
	return wake.QueueFrom(ctx).InTx(ctx, func(ctx context.Context, tx *durable.SQLTx) error {
		return set(ctx, tx, username)
	})
}

var (
	errPicture = errors.New("the picture cannot be resized")
	errPanic   = errors.New("the task panicked")
)

// final reports whether no other attempt can change an error.
func final(err error) bool {
	for _, target := range []error{users.ErrUnknown, users.ErrNoPicture, mailer.ErrRefused, crm.ErrRefused, errPicture} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// define declares a task whose progress the page can watch.
func define(name string, run func(context.Context, *State, string) error, opts ...wake.TaskOption) *wake.Task[*State, string] {
	return wake.Define(name, func(ctx context.Context, s *State, username string) error {
		s.Progress.Publish(username, name, progress.Running, "", time.Now())
		err := errPanic // unless run returns
		defer func() {
			state, detail := news(ctx, err)
			s.Progress.Publish(username, name, state, detail, time.Now())
		}()
		if err = run(ctx, s, username); final(err) {
			return durable.Cancel(err)
		}
		return err
	}, opts...)
}

// news is what the page says of a task that has ended with err. The error's text is for the log, where Wake writes it,
// not for everybody who looks at the page.
func news(ctx context.Context, err error) (progress.State, string) {
	if err == nil {
		return progress.Done, ""
	}
	if task, queued := durable.InfoFrom(ctx); queued && !final(err) && task.Attempt < task.MaxAttempts {
		return progress.Retrying, "It did not work. It will be tried again."
	}
	return progress.Failed, "It did not work. The service's log says why."
}
