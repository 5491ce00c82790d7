package catcher

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/mail"
)

// Message is a mail that arrived.
type Message struct {
	ID         string    `json:"id" doc:"Message-ID without its brackets"`
	From       string    `json:"from"`
	To         []string  `json:"to"`
	Subject    string    `json:"subject"`
	Text       string    `json:"text" doc:"the text/plain part"`
	ReceivedAt time.Time `json:"received_at"`
	Deliveries int       `json:"deliveries" doc:"how often it was sent: more than once after a retry"`
}

// maxParts bounds the work that one message can cause.
const maxParts = 20

// parse reads a message and the key that tells a mail sent twice from two mails: its Idempotency-Key, or else its
// Message-ID.
func parse(r io.Reader) (Message, string, error) {
	reader, err := mail.CreateReader(r)
	if err != nil && !message.IsUnknownCharset(err) {
		return Message{}, "", fmt.Errorf("the message cannot be read: %w", err)
	}
	m := Message{ReceivedAt: time.Now().UTC(), Deliveries: 1}
	if m.Subject, err = reader.Header.Subject(); err != nil {
		m.Subject = reader.Header.Get("Subject") // undecoded is better than nothing
	}
	if m.ID, err = reader.Header.MessageID(); err != nil {
		return Message{}, "", fmt.Errorf("the Message-ID is malformed: %w", err)
	}
	key := reader.Header.Get("Idempotency-Key")
	if key == "" {
		key = m.ID
	}
	m.Text, err = plainText(reader)
	return m, key, err
}

// plainText returns the first text/plain part. It reads to the end, because the SMTP server must.
func plainText(reader *mail.Reader) (string, error) {
	text, found := "", false
	for range maxParts {
		part, err := reader.NextPart()
		if errors.Is(err, io.EOF) {
			return text, nil
		}
		if err != nil && !message.IsUnknownCharset(err) {
			return "", fmt.Errorf("the message cannot be read: %w", err)
		}
		body, err := io.ReadAll(part.Body) // bounded by maxMessageBytes
		if err != nil {
			return "", fmt.Errorf("the message cannot be read: %w", err)
		}
		header, inline := part.Header.(*mail.InlineHeader)
		if !inline || found {
			continue
		}
		if kind, _, err := header.ContentType(); err == nil && kind == "text/plain" {
			text, found = string(body), true
		}
	}
	return "", fmt.Errorf("the message has more than %d parts: send fewer", maxParts)
}
