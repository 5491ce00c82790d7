// Package mailer sends the welcome mail over SMTP.
package mailer

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/netip"
	"strconv"
	"strings"
	texttemplate "text/template"
	"time"

	"github.com/wneessen/go-mail"
)

//go:embed welcome.txt welcome.html
var templates embed.FS

// ErrRefused says that the server will never take the mail: it answered with a status of 500 or above.
var ErrRefused = errors.New("the server refuses this mail for good")

// sendTimeout bounds one delivery from dialing to the server's last answer.
const sendTimeout = 10 * time.Second

// Mailer sends mail through one server. Its methods may be called from any goroutine; every mail has a connection of its
// own, so there is nothing to close.
type Mailer struct {
	host    string
	options []mail.Option
	text    *texttemplate.Template
	html    *template.Template
}

// New returns a mailer for the server at addr, a host:port. It does not connect.
func New(addr string) (*Mailer, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("SMTP server %q: the address must be host:port, such as localhost:1025: %w", addr, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 || host == "" {
		return nil, fmt.Errorf("SMTP server %q: the address must have a host, and a port from 1 to 65535: write localhost:1025", addr)
	}
	text, err := texttemplate.ParseFS(templates, "welcome.txt")
	if err != nil {
		return nil, fmt.Errorf("parse the welcome mail: %w", err)
	}
	html, err := template.ParseFS(templates, "welcome.html")
	if err != nil {
		return nil, fmt.Errorf("parse the welcome mail: %w", err)
	}
	// Encrypt where the server can. On the loopback there is nobody to hide from, and no certificate to trust.
	policy := mail.TLSOpportunistic
	if isLoopback(host) {
		policy = mail.NoTLS
	}
	return &Mailer{
		host: host,
		text: text,
		html: html,
		options: []mail.Option{
			mail.WithPort(int(port)),
			mail.WithTLSPolicy(policy),
			mail.WithTimeout(sendTimeout),
			mail.WithHELO("localhost"),
			mail.WithoutNoop(),
		},
	}, nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Address returns where mail for username goes. The domain is reserved for tests: nobody can receive it by accident.
func Address(username string) string { return username + "@example.test" }

// SendWelcome sends the welcome mail. Its Message-ID and Idempotency-Key depend on the username alone, so a mail that
// is sent a second time, because the first time ended in doubt, is recognizable as the same one. An error that matches
// [ErrRefused] is final; after any other it makes sense to try again.
func (m *Mailer) SendWelcome(ctx context.Context, username string) error {
	message, err := m.welcome(username)
	if err == nil {
		err = m.send(ctx, message)
	}
	if err != nil {
		return fmt.Errorf("send the welcome mail to %q: %w", Address(username), err)
	}
	return nil
}

func (m *Mailer) welcome(username string) (*mail.Msg, error) {
	key := strings.ToLower(username)
	message := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := message.FromFormat("Wake signup", "hello@example.test"); err != nil {
		return nil, err
	}
	if err := message.To(Address(username)); err != nil {
		return nil, err
	}
	message.Subject("Welcome, " + username + "!")
	message.SetMessageIDWithValue("welcome." + key + "@example.test")
	message.SetGenHeader("Idempotency-Key", "welcome-"+key)
	data := struct{ Username string }{username}
	if err := message.SetBodyTextTemplate(m.text, data); err != nil {
		return nil, err
	}
	if err := message.AddAlternativeHTMLTemplate(m.html, data); err != nil {
		return nil, err
	}
	return message, nil
}

func (m *Mailer) send(ctx context.Context, message *mail.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()

	// The library's own context ends with the dialing. Closing the connection is what ends a conversation early, and
	// what frees it after a greeting that failed.
	var conn net.Conn
	var stop func() bool
	client, err := mail.NewClient(m.host, append(m.options[:len(m.options):len(m.options)],
		mail.WithDialContextFunc(func(dialCtx context.Context, network, addr string) (net.Conn, error) {
			dialed, err := new(net.Dialer).DialContext(dialCtx, network, addr)
			if err != nil {
				return nil, err
			}
			conn = dialed
			stop = context.AfterFunc(ctx, func() { dialed.Close() })
			return dialed, nil
		}))...)
	if err != nil {
		return err
	}
	err = client.DialAndSendWithContext(ctx, message)
	if conn != nil {
		stop()
		conn.Close()
	}
	if message.IsDelivered() {
		return nil // the server has it; how the two parted does not matter
	}
	if err != nil && ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	var refusal *mail.SendError
	if errors.As(err, &refusal) && refusal.ErrorCode() >= 500 {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}
