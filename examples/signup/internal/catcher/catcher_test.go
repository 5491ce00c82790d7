package catcher_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/smtp"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wake-go/wake/examples/signup/internal/catcher"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) *catcher.Catcher {
	t.Helper()
	c, err := catcher.Start(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func send(c *catcher.Catcher, body string) error {
	return smtp.SendMail(c.Addr(), nil, "from@example.test", []string{"to@example.test"}, []byte(crlf(body)))
}

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func TestKeepsTheTextPart(t *testing.T) {
	t.Parallel()
	c := start(t)
	before := time.Now()
	err := send(c, `Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=
Message-ID: <one@example.test>
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary=b

--b
Content-Type: text/html; charset=utf-8

<p>no</p>
--b
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: base64

U2Now7ZuIQ==
--b--
`)
	if err != nil {
		t.Fatal(err)
	}
	messages := c.Messages()
	if len(messages) != 1 {
		t.Fatalf("%d messages, want 1", len(messages))
	}
	m := messages[0]
	if m.ID != "one@example.test" || m.From != "from@example.test" || fmt.Sprint(m.To) != "[to@example.test]" ||
		m.Subject != "Grüße" || m.Text != "Schön!" || m.Deliveries != 1 {
		t.Errorf("message = %+v", m)
	}
	if m.ReceivedAt.Before(before) || m.ReceivedAt.After(time.Now()) {
		t.Errorf("received at %v", m.ReceivedAt)
	}
}

func TestOneMailSentTwiceIsOne(t *testing.T) {
	t.Parallel()
	c := start(t)
	for _, headers := range []string{
		"Idempotency-Key: a\nMessage-ID: <1@example.test>\n",
		"Idempotency-Key: a\nMessage-ID: <2@example.test>\n",
		"Message-ID: <3@example.test>\n",
		"Message-ID: <3@example.test>\n",
		"Subject: no key\n",
		"Subject: no key\n",
	} {
		if err := send(c, headers+"\nHello"); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, m := range c.Messages() {
		got = append(got, fmt.Sprintf("%s×%d", m.ID, m.Deliveries))
	}
	if want := "[×1 ×1 3@example.test×2 1@example.test×2]"; fmt.Sprint(got) != want {
		t.Errorf("messages = %v, want %s", got, want)
	}
}

func TestKeepsTheNewest(t *testing.T) {
	t.Parallel()
	c := start(t)
	client, err := smtp.Dial(c.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	const sent, kept = 203, 200
	for i := range sent {
		deliver(t, client, fmt.Sprintf("Message-ID: <%d@example.test>\r\n\r\nHello", i))
	}
	deliver(t, client, "Message-ID: <0@example.test>\r\n\r\nforgotten, so it is new again")

	messages := c.Messages()
	if len(messages) != kept {
		t.Fatalf("%d messages, want %d", len(messages), kept)
	}
	if messages[0].ID != "0@example.test" || messages[1].ID != "202@example.test" || messages[kept-1].ID != "4@example.test" {
		t.Errorf("newest %s, %s; oldest %s", messages[0].ID, messages[1].ID, messages[kept-1].ID)
	}
}

func deliver(t *testing.T, client *smtp.Client, message string) {
	t.Helper()
	if err := errors.Join(client.Mail("from@example.test"), client.Rcpt("to@example.test")); err != nil {
		t.Fatal(err)
	}
	w, err := client.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(message)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	c := start(t)
	for name, test := range map[string]struct {
		body string
		code int
	}{
		"too large":  {"Subject: large\n\n" + strings.Repeat("0123456789abcde\n", 17<<10), 552},
		"many parts": {"Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n\nx\n", 50) + "--b--\n", 554},
		"no end":     {"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n", 554},
		"bad id":     {"Message-ID: <a\n\nx", 554},
	} {
		var answer *textproto.Error
		if err := send(c, test.body); !errors.As(err, &answer) || answer.Code != test.code {
			t.Errorf("%s: %v, want status %d", name, err, test.code)
		}
	}
	if messages := c.Messages(); len(messages) != 0 {
		t.Errorf("kept %v", messages)
	}
	if err := send(c, "Subject: fine\n\nstill works"); err != nil {
		t.Error(err)
	}
}

func TestCloseHangsUp(t *testing.T) {
	t.Parallel()
	c, err := catcher.Start(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	client, err := smtp.Dial(c.Addr()) // greeted, and then idle
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := client.Noop(); err == nil {
		t.Error("the connection outlived the catcher")
	}
	if conn, err := net.Dial("tcp", c.Addr()); err == nil {
		conn.Close()
		t.Error("the port is still open")
	}
}
