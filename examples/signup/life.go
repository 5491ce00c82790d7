package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/examples/signup/internal/catcher"
	"github.com/wake-go/wake/examples/signup/internal/crm"
	"github.com/wake-go/wake/examples/signup/internal/mailer"
	"github.com/wake-go/wake/examples/signup/internal/progress"
	"github.com/wake-go/wake/examples/signup/internal/users"
)

// life opens what the service needs before the first request, and closes it, the last one first, after the last task.
func (c config) life(ctx context.Context, yield func(*State) error) (err error) {
	if err := c.validate(); err != nil {
		return err
	}
	s := &State{Progress: progress.NewHub()}

	if s.Users, err = users.Open(ctx, c.database); err != nil {
		return fmt.Errorf("WAKE_QUEUE: %w", err)
	}
	defer closing(&err, s.Users)
	wake.Check(ctx, "database", s.Users.Ping)

	if c.smtp == "" {
		if s.Mailbox, err = catcher.Start(ctx, slog.Default()); err != nil {
			return err
		}
		defer closing(&err, s.Mailbox)
		c.smtp = s.Mailbox.Addr()
	}
	if s.Mail, err = mailer.New(c.smtp); err != nil {
		return fmt.Errorf("SIGNUP_SMTP: %w", err)
	}

	if c.crm == "" {
		if s.CRMStub, err = crm.StartStub(ctx, slog.Default()); err != nil {
			return err
		}
		defer closing(&err, s.CRMStub)
		c.crm = s.CRMStub.URL()
	}
	if s.CRM, err = crm.NewClient(c.crm); err != nil {
		return fmt.Errorf("SIGNUP_CRM: %w", err)
	}
	defer closing(&err, s.CRM)

	defer closing(&err, s.Progress)
	return yield(s)
}

// closing closes c and adds what goes wrong to err, so that no error hides another.
func closing(err *error, c io.Closer) {
	*err = errors.Join(*err, c.Close())
}
