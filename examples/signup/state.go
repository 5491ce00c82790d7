package main

import (
	"time"

	"github.com/wake-go/wake/examples/signup/internal/catcher"
	"github.com/wake-go/wake/examples/signup/internal/crm"
	"github.com/wake-go/wake/examples/signup/internal/mailer"
	"github.com/wake-go/wake/examples/signup/internal/progress"
	"github.com/wake-go/wake/examples/signup/internal/users"
)

// State is what operations and tasks share.
type State struct {
	Users    *users.Store
	Mail     *mailer.Mailer
	CRM      *crm.Client
	Progress *progress.Hub
	Started  time.Time // tells this process from those before it

	Mailbox *catcher.Catcher // nil if the mail goes to a server elsewhere
	CRMStub *crm.Stub        // nil if there is a CRM elsewhere
}
