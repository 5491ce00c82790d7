package main

import (
	"cmp"
	"errors"
	"strings"
)

// config is what the environment says. [wake.Main] reads the rest: WAKE_ADDR, WAKE_ADMIN, WAKE_DRAIN and the log's.
type config struct {
	database string // WAKE_QUEUE, the URL of the users' database
	smtp     string // SIGNUP_SMTP, host:port of the mail server; empty for the built-in catcher
	crm      string // SIGNUP_CRM, URL of the CRM; empty for the built-in stub
}

func configFrom(getenv func(string) string) config {
	return config{
		database: cmp.Or(getenv("WAKE_QUEUE"), "sqlite:signup.db"),
		smtp:     getenv("SIGNUP_SMTP"),
		crm:      getenv("SIGNUP_CRM"),
	}
}

// validate finds what no part of the program would explain as well. The error does not repeat the URL, which may have a
// password in it.
func (c config) validate() error {
	if scheme, _, _ := strings.Cut(c.database, ":"); scheme == "postgres" || scheme == "postgresql" {
		return errors.New("WAKE_QUEUE is a " + scheme + " URL: PostgreSQL needs the durable queue's PostgreSQL store, " +
			"which is not part of this version; name a file instead, such as sqlite:signup.db")
	}
	return nil
}
