// Package crm tells a customer relationship system about new users, and has a stub of such a system for the example's
// first run.
//
// The protocol is one call: POST {base}/contacts with a [Contact] as JSON and an Idempotency-Key header, answered with
// any 2xx status.
package crm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	callTimeout  = 10 * time.Second
	maxAnswer    = 16 << 10 // of the CRM's answer; the rest is not read, and the connection is given up
	maxQuote     = 200      // of the answer in an error
	maxPerHost   = 32       // connections; further calls wait for one, within their time-out
	keepAliveFor = 30 * time.Second
)

// ErrRefused says that the CRM will never take the contact as it is.
var ErrRefused = errors.New("the CRM refuses this contact for good")

// Contact is what the CRM learns.
type Contact struct {
	Username string `json:"username"`
	Email    string `json:"email"`
}

// Client calls a CRM. It is made once and shared, because its connections are what makes it fast.
type Client struct {
	contacts  string
	http      *http.Client
	transport *http.Transport
}

// NewClient returns a client of the CRM at baseURL. It does not connect.
func NewClient(baseURL string) (*Client, error) {
	base, err := url.Parse(baseURL)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("CRM %q: the URL must have the scheme http or https and a host: write https://crm.example.com", baseURL)
	}
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: callTimeout}).DialContext,
		ForceAttemptHTTP2:      true,
		MaxConnsPerHost:        maxPerHost,
		MaxIdleConnsPerHost:    maxPerHost,
		IdleConnTimeout:        keepAliveFor,
		TLSHandshakeTimeout:    callTimeout,
		ResponseHeaderTimeout:  callTimeout,
		MaxResponseHeaderBytes: maxAnswer,
	}
	return &Client{
		contacts:  base.JoinPath("contacts").String(),
		http:      &http.Client{Transport: transport, Timeout: callTimeout},
		transport: transport,
	}, nil
}

// Close closes the idle connections. Calls that are still running finish first.
func (c *Client) Close() error {
	c.transport.CloseIdleConnections()
	return nil
}

// Add tells the CRM about a contact. The Idempotency-Key depends on the username alone, so a call that is made again,
// because the first one ended in doubt, adds no second contact. An error that matches [ErrRefused] is final; after any
// other it makes sense to call again.
func (c *Client) Add(ctx context.Context, contact Contact) error {
	if err := c.add(ctx, contact); err != nil {
		return fmt.Errorf("add %q to the CRM: %w", contact.Username, err)
	}
	return nil
}

func (c *Client) add(ctx context.Context, contact Contact) error {
	body, err := json.Marshal(contact)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.contacts, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", "contact-"+strings.ToLower(contact.Username))

	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	// Reading to the end, where the end is near, lets the next call use the connection.
	answer, readErr := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	closeErr := response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 299 {
		err := fmt.Errorf("it answered %s: %q", response.Status, answer[:min(len(answer), maxQuote)])
		if final(response.StatusCode) {
			err = fmt.Errorf("%w: %w", ErrRefused, err)
		}
		return err
	}
	return errors.Join(readErr, closeErr)
}

// final reports whether a status is about the contact itself. Others are about the moment, or about something that an
// operator can put right: a key that has expired, a wrong URL.
func final(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusGone, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return true
	}
	return false
}
