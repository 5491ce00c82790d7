package postgres_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/postgres"
)

// Whatever is wrong with a URL, its password is in no error.
func TestPasswordsAreMasked(t *testing.T) {
	const secret = "s3cr3t"
	for _, raw := range []string{
		"postgres://u:" + secret + "@127.0.0.1:1/db?sslmode=disable",
		"postgres://u:" + secret + "@127.0.0.1:5432/no_such_database?sslmode=disable",
		"postgres://u:" + secret + "%zz@host/db",
		"postgres://u:" + secret + " with spaces@host:port/db",
		"postgres://u:" + secret + "@ho st/db",
		"postgres://u:" + secret + "/" + secret + "@host/db?sslmode=nonsense",
		"postgres://host/db?user=u&password=" + secret + "&sslmode=nonsense",
		"host=127.0.0.1 port=1 user=u password=" + secret + " sslmode=disable",
		"host=127.0.0.1 port=x user=u password='" + secret + " " + secret + "'",
		"mysql://u:" + secret + "@host/db",
		"postgres://u:" + secret + "@host/db?max_conns=x",
	} {
		_, opened := postgres.Open(t.Context(), postgres.Config{URL: raw})
		_, parsed := postgres.ParseURL(raw)
		for _, err := range []error{opened, parsed} {
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("the error shows the password: %v", err)
			}
		}
		if opened == nil {
			t.Errorf("%s was opened", raw)
		}
	}
}

func TestParseURL(t *testing.T) {
	c, err := postgres.ParseURL("postgres://u@host/db?schema=jobs&max_conns=30&sslmode=disable")
	if err != nil || c.Schema != "jobs" || c.MaxConns != 30 || c.URL != "postgres://u@host/db?sslmode=disable" {
		t.Errorf("got %+v, %v", c, err)
	}
	for raw, want := range map[string]string{
		"sqlite:a.db":                       "postgres://",
		"postgres://host/db?schema=Big":     "Config.Schema",
		"postgres://host/db?max_conns=3":    "Config.MaxConns",
		"postgres://host/db?max_conns=many": "max_conns",
		"postgres://host:port/db":           "Config.URL",
	} {
		if _, err := postgres.ParseURL(raw); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q in it", raw, err, want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	server := serverURL(t)
	schema := newSchema(t, server)
	s := open(t, postgres.Config{URL: server, Schema: schema})
	mustExec(t, s.DB(), `UPDATE `+schema+`.meta SET value = '99'`)
	for name, test := range map[string]struct {
		cfg  postgres.Config
		want string
	}{
		"newer":    {postgres.Config{URL: server, Schema: schema}, "run a newer one"},
		"empty":    {postgres.Config{}, "Config.URL"},
		"schema":   {postgres.Config{URL: server, Schema: "a b"}, "Config.Schema"},
		"conns":    {postgres.Config{URL: server, MaxConns: 2}, "Config.MaxConns"},
		"timeout":  {postgres.Config{URL: server, LockTimeout: -1}, "Config.LockTimeout"},
		"database": {postgres.Config{URL: server + "&database=none_such"}, "none_such"},
	} {
		_, err := postgres.Open(t.Context(), test.cfg)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q in it", name, err, test.want)
		}
	}
	if _, err := postgres.Open(t.Context(), postgres.Config{URL: "postgres://127.0.0.1:1/none"}); !errors.Is(err, durable.ErrUnavailable) {
		t.Errorf("no server: %v", err)
	}
}

// Many processes that start at once make one schema, whatever its name is.
func TestManyOpenAtOnce(t *testing.T) {
	server := serverURL(t)
	schema := newSchema(t, server)
	errs := make(chan error)
	const n = 6
	for range n {
		go func() {
			s, err := postgres.Open(t.Context(), postgres.Config{URL: server, Schema: schema})
			if err == nil {
				err = errors.Join(s.Ping(t.Context()), s.Close())
			}
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// A role that may use the tables, and nothing else, is enough for everything
// but migrations.
func TestLeastPrivileges(t *testing.T) {
	server := serverURL(t)
	schema := newSchema(t, server)
	owner := open(t, postgres.Config{URL: server, Schema: schema})
	role := schema
	mustExec(t, owner.DB(), `CREATE ROLE `+role+` LOGIN PASSWORD 'secret'`)
	t.Cleanup(func() {
		if _, err := owner.DB().Exec(`DROP OWNED BY ` + role + `; DROP ROLE ` + role); err != nil {
			t.Error(err)
		}
	})
	mustExec(t, owner.DB(), `GRANT USAGE ON SCHEMA `+schema+` TO `+role)
	mustExec(t, owner.DB(), `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA `+schema+` TO `+role)
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, "secret")
	s := open(t, postgres.Config{URL: u.String(), Schema: schema})
	boot := register(t, s, durable.Node{Name: "n"})
	in := newInsert("a")
	in.Key, in.Tags, in.Payload = "k", []string{"t"}, make([]byte, 3000)
	res := commit(t, s, &durable.Batch{Boot: boot, Inserts: []durable.Insert{in, newInsert("a")}, Claims: claims(9, "a")})
	commit(t, s, &durable.Batch{Boot: boot, Finishes: []durable.Finish{
		{Ref: res.Claimed[0].Ref, Move: durable.MoveSucceed},
		{Ref: res.Claimed[1].Ref, Move: durable.MoveExhaust, Error: &durable.AttemptError{Attempt: 1, Cause: "error"}},
	}})
	for _, err := range []error{
		s.Ping(t.Context()), s.Retry(t.Context(), res.Claimed[1].Ref.ID), s.Delete(t.Context(), res.Claimed[1].Ref.ID), s.SetPaused(t.Context(), "q", true),
		s.DeclareSchedules(t.Context(), []durable.ScheduleRow{{Name: "s", Spec: "@every 1m", Zone: "UTC"}}), s.Unregister(t.Context(), boot),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}
