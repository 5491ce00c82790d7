package mailer_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"

	"github.com/wake-go/wake/examples/signup/internal/catcher"
	"github.com/wake-go/wake/examples/signup/internal/mailer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newMailer(t *testing.T, addr string) *mailer.Mailer {
	t.Helper()
	m, err := mailer.New(addr)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestWelcomeIsOneMailHoweverOftenSent(t *testing.T) {
	t.Parallel()
	server, err := catcher.Start(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	m := newMailer(t, server.Addr())
	for range 3 {
		if err := m.SendWelcome(t.Context(), "Ada_L-1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.SendWelcome(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	messages := server.Messages()
	if len(messages) != 2 {
		t.Fatalf("%d mails, want 2", len(messages))
	}
	got := messages[1]
	if got.ID != "welcome.ada_l-1@example.test" || got.Deliveries != 3 || got.Subject != "Welcome, Ada_L-1!" ||
		got.From != "hello@example.test" || len(got.To) != 1 || got.To[0] != "Ada_L-1@example.test" {
		t.Errorf("mail = %+v", got)
	}
	if !strings.HasPrefix(got.Text, "Hello Ada_L-1,\r\n") && !strings.HasPrefix(got.Text, "Hello Ada_L-1,\n") {
		t.Errorf("text = %q", got.Text)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	listener := listen(t)
	addr := listener.Addr().String()
	listener.Close()
	err := newMailer(t, addr).SendWelcome(t.Context(), "ada")
	if err == nil || !strings.Contains(err.Error(), "ada@example.test") {
		t.Errorf("SendWelcome = %v, want an error with the address", err)
	}
}

// refusing is a server that takes no recipient.
type refusing struct {
	smtp.Session
	code int
}

func (r refusing) NewSession(*smtp.Conn) (smtp.Session, error) { return r, nil }
func (r refusing) Mail(string, *smtp.MailOptions) error        { return nil }
func (r refusing) Reset()                                      {}
func (r refusing) Logout() error                               { return nil }
func (r refusing) Rcpt(string, *smtp.RcptOptions) error {
	return &smtp.SMTPError{Code: r.code, Message: "no"}
}

func TestOnlyARefusalForGoodIsOne(t *testing.T) {
	t.Parallel()
	for code, final := range map[int]bool{450: false, 452: false, 550: true, 554: true} {
		listener := listen(t)
		server := smtp.NewServer(refusing{code: code})
		ended := make(chan error, 1)
		go func() { ended <- server.Serve(listener) }()
		err := newMailer(t, listener.Addr().String()).SendWelcome(t.Context(), "ada")
		if err == nil || errors.Is(err, mailer.ErrRefused) != final {
			t.Errorf("after %d: %v, want ErrRefused: %t", code, err, final)
		}
		server.Close()
		<-ended
	}
	if err := newMailer(t, "127.0.0.1:1").SendWelcome(t.Context(), "ada"); errors.Is(err, mailer.ErrRefused) {
		t.Errorf("nobody listens: %v", err)
	}
}

// A server that accepts and never says a word must not hold the task longer than its context.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	listener := listen(t)
	defer listener.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("the task was cancelled")
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			cancel(reason)
		}
		accepted <- conn
	}()
	if err := newMailer(t, listener.Addr().String()).SendWelcome(ctx, "ada"); !errors.Is(err, reason) {
		t.Errorf("SendWelcome = %v, want the reason of the cancellation", err)
	}
	conn := <-accepted
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the mailer left its connection open")
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

func TestRefusesHeaderInjection(t *testing.T) {
	t.Parallel()
	for _, username := range []string{"", "a\r\nBcc: b", "a b", "a@b", "<a>"} {
		if err := newMailer(t, "127.0.0.1:1").SendWelcome(t.Context(), username); err == nil {
			t.Errorf("SendWelcome(%q) succeeded", username)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"", "localhost", ":25", "localhost:", "localhost:0", "localhost:smtp", "localhost:65536"} {
		_, err := mailer.New(addr)
		if err == nil || !strings.Contains(err.Error(), "localhost:1025") {
			t.Errorf("New(%q) = %v, want an error that shows how to write it", addr, err)
		}
	}
}
