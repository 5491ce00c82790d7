package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/examples/signup/internal/crm"
	"github.com/wake-go/wake/examples/signup/internal/mailer"
	"github.com/wake-go/wake/examples/signup/internal/progress"
	"github.com/wake-go/wake/examples/signup/internal/thumbnail"
	"github.com/wake-go/wake/examples/signup/internal/users"
)

// thumbnailSide is the longest side of a resized picture, in pixels.
const thumbnailSide = 256

// The tasks of a registration. Their argument is the username. Each leaves its mark in the database when it is done.
var (
	LogRegistration  = define("log_registration", logRegistration)
	SendWelcomeEmail = define("send_welcome_email", sendWelcomeEmail, wake.Timeout(30*time.Second))
	ResizePicture    = define("resize_picture", resizePicture, wake.Lane("cpu"))
	UpdateCRM        = define("update_crm", updateCRM, wake.Timeout(30*time.Second))
)

func logRegistration(ctx context.Context, s *State, username string) error {
	slog.InfoContext(ctx, "user registered", "username", username)
	return s.Users.MarkLogged(ctx, username)
}

func sendWelcomeEmail(ctx context.Context, s *State, username string) error {
	if err := s.Mail.SendWelcome(ctx, username); err != nil {
		return err
	}
	return s.Users.MarkEmailed(ctx, username)
}

func resizePicture(ctx context.Context, s *State, username string) error {
	upload, err := s.Users.Upload(ctx, username)
	if errors.Is(err, users.ErrNoPicture) {
		return nil // resized already
	}
	if err != nil {
		return err
	}
	small, err := thumbnail.Resize(upload, thumbnailSide)
	if err != nil {
		return err
	}
	return s.Users.SetPicture(ctx, username, small)
}

func updateCRM(ctx context.Context, s *State, username string) error {
	contact := crm.Contact{Username: username, Email: mailer.Address(username)}
	if err := s.CRM.Add(ctx, contact); err != nil {
		return err
	}
	return s.Users.MarkCRM(ctx, username)
}

// define declares a task whose progress the page can watch.
func define(name string, run func(context.Context, *State, string) error, opts ...wake.TaskOption) *wake.Task[*State, string] {
	return wake.Define(name, func(ctx context.Context, s *State, username string) error {
		s.Progress.Publish(username, name, progress.Running, "", time.Now())
		// What the error says is for the log, where Wake writes it, not for everybody who looks at the page.
		state, detail := progress.Failed, "It did not work. The service's log says why."
		defer func() { s.Progress.Publish(username, name, state, detail, time.Now()) }() // also after a panic
		err := run(ctx, s, username)
		if err == nil {
			state, detail = progress.Done, ""
		}
		return err
	}, opts...)
}
