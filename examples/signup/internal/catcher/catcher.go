// Package catcher is an SMTP server that keeps what it receives instead of delivering it, so that the example has a
// mail server on its first run and its page can show the mail that arrived.
//
// It listens on a free loopback port, accepts every sender and recipient, and keeps the newest messages in memory.
package catcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/emersion/go-smtp"
)

const (
	maxMessages     = 200       // kept; the oldest goes when another arrives
	maxMessageBytes = 256 << 10 // a larger message is refused with SMTP status 552
	maxRecipients   = 10        // more are refused with status 452
	maxConnections  = 256       // more are hung up on; the sender tries again
	ioTimeout       = 10 * time.Second
	closeTimeout    = 5 * time.Second
)

// Catcher is a running SMTP server. [Catcher.Close] stops it.
type Catcher struct {
	mailbox  *mailbox
	listener *listener
	server   *smtp.Server
	served   chan error
}

// Start starts a catcher on a free loopback port. The context bounds the start only. What goes wrong on single
// connections later is written to the logger.
func Start(ctx context.Context, logger *slog.Logger) (*Catcher, error) {
	var config net.ListenConfig
	tcp, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the SMTP catcher: %w", err)
	}
	c := &Catcher{mailbox: newMailbox(), listener: newListener(tcp), served: make(chan error, 1)}
	c.server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &session{mailbox: c.mailbox}, nil
	}))
	c.server.Domain = "localhost"
	c.server.MaxMessageBytes = maxMessageBytes
	c.server.MaxRecipients = maxRecipients
	c.server.ReadTimeout = ioTimeout
	c.server.WriteTimeout = ioTimeout
	c.server.ErrorLog = slog.NewLogLogger(logger.Handler(), slog.LevelWarn)
	go func() { c.served <- c.server.Serve(c.listener) }()
	return c, nil
}

// Addr returns the host:port to send mail to.
func (c *Catcher) Addr() string { return c.listener.Addr().String() }

// Messages returns the messages kept, newest first.
func (c *Catcher) Messages() []Message { return c.mailbox.list() }

// Close hangs up on every connection and waits for their goroutines.
func (c *Catcher) Close() error {
	// The server either waits for clients to leave or forgets about their goroutines. Closing the connections first
	// makes its waiting short.
	closeErr := c.listener.Close()
	serveErr := <-c.served
	if errors.Is(serveErr, net.ErrClosed) {
		serveErr = nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := c.server.Shutdown(ctx)
	if errors.Is(err, net.ErrClosed) {
		err = nil // the listener, which is closed already
	}
	if err := errors.Join(closeErr, serveErr, err); err != nil {
		return fmt.Errorf("close the SMTP catcher: %w", err)
	}
	return nil
}

// session is one client's conversation.
type session struct {
	mailbox *mailbox
	from    string
	to      []string
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	message, key, err := parse(r)
	if errors.Is(err, smtp.ErrDataTooLarge) {
		return smtp.ErrDataTooLarge
	}
	if err != nil {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: err.Error()}
	}
	message.From, message.To = s.from, s.to
	s.mailbox.put(message, key)
	return nil
}

func (s *session) Reset() { s.from, s.to = "", nil }

func (s *session) Logout() error { return nil }
