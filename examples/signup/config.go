package main

// config is what the environment says. [wake.Main] reads the rest: WAKE_ADDR, WAKE_ADMIN, WAKE_QUEUE, WAKE_LEASE,
// WAKE_DRAIN, WAKE_WORKERS and the log's.
type config struct {
	smtp string // SIGNUP_SMTP, host:port of the mail server; empty for the built-in catcher
	crm  string // SIGNUP_CRM, URL of the CRM; empty for the built-in stub
}

// database is where the users and the queued tasks are, unless WAKE_QUEUE or --queue names another file.
const database = "sqlite:signup.db"

func configFrom(getenv func(string) string) config {
	return config{smtp: getenv("SIGNUP_SMTP"), crm: getenv("SIGNUP_CRM")}
}
