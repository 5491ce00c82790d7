package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/examples/signup/internal/catcher"
	"github.com/wake-go/wake/examples/signup/internal/crm"
	"github.com/wake-go/wake/examples/signup/internal/mailer"
	"github.com/wake-go/wake/examples/signup/internal/progress"
	"github.com/wake-go/wake/examples/signup/internal/users"
)

// life opens what the service needs before the first request, and closes it, the last one first, after the last task.
// The database is the queue's, which Wake opens before and closes after it.
func (c config) life(ctx context.Context, yield func(*State) error) (err error) {
	s := &State{Progress: progress.NewHub(), Started: time.Now()}

	db := wake.DB(ctx)
	if db == nil {
		return errors.New("the queue is not in an SQLite file, where the users are to be as well: set WAKE_QUEUE to " + database)
	}
	if s.Users, err = users.New(ctx, db); err != nil {
		return err
	}
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
