package waketest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/durable"
)

// idHeader connects a request with its tasks. The application does not see it.
const idHeader = "Waketest-Request"

// A Client sends requests to the application in the test. Its methods fail the
// test when there is no answer.
type Client struct {
	t        testing.TB
	listener *listener
	http     *http.Client
	patience time.Duration
	stop     func() error
	queue    func() *durable.Queue
	runQueue func(context.Context) error
	stopped  atomic.Bool
	last     atomic.Uint64
	pending  sync.Map // id → *exchange
}

// An exchange is a request on its way.
type exchange struct {
	arrived atomic.Bool   // at the application: net/http has not refused it
	watched atomic.Bool   // past the application's own middleware
	ended   chan struct{} // closed when the request's tasks have ended
}

func newClient(t testing.TB, patience time.Duration) *Client {
	c := &Client{t: t, listener: newListener(), patience: patience}
	c.http = &http.Client{
		Transport:     &transport{c, &http.Transport{DialContext: c.listener.dial}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// A Response is an answer whose body has been read.
type Response struct {
	t      testing.TB
	Status int
	Header http.Header
	Body   []byte
}

// String returns status and body, for messages of failed tests.
func (r *Response) String() string {
	return fmt.Sprintf("%d %s: %s", r.Status, http.StatusText(r.Status), bytes.TrimSpace(r.Body))
}

// JSON decodes the body into v, or fails the test.
func (r *Response) JSON(v any) {
	r.t.Helper()
	if err := json.Unmarshal(r.Body, v); err != nil {
		r.t.Fatalf("waketest: the answer is not what was expected: %v\n%s", err, r)
	}
}

// Get sends a GET request. Header is a list of names and values in turn.
func (c *Client) Get(path string, header ...string) *Response {
	c.t.Helper()
	return c.send(http.MethodGet, path, nil, header)
}

// Post sends a POST request. The body is nil, a string, a []byte or an
// io.Reader to be sent as it is, or any other value to be sent as JSON.
func (c *Client) Post(path string, body any, header ...string) *Response {
	c.t.Helper()
	return c.send(http.MethodPost, path, body, header)
}

// Put sends a PUT request, see [Client.Post].
func (c *Client) Put(path string, body any, header ...string) *Response {
	c.t.Helper()
	return c.send(http.MethodPut, path, body, header)
}

// Patch sends a PATCH request, see [Client.Post].
func (c *Client) Patch(path string, body any, header ...string) *Response {
	c.t.Helper()
	return c.send(http.MethodPatch, path, body, header)
}

// Delete sends a DELETE request.
func (c *Client) Delete(path string, header ...string) *Response {
	c.t.Helper()
	return c.send(http.MethodDelete, path, nil, header)
}

// HTTP returns an HTTP client for requests that the other methods have no word
// for. The host of its URLs does not matter. It follows no redirects. The body
// of an answer is complete, and the tasks have ended, when it returns, but for
// an event stream, which is handed over as it comes.
func (c *Client) HTTP() *http.Client { return c.http }

// URL returns the URL of a path, for requests sent with [Client.HTTP].
func (c *Client) URL(path string) string { return "http://wake.test" + path }

// Stop stops the application, as a signal would, waits until it has ended and
// returns its error, which then does not fail the test.
func (c *Client) Stop() error {
	c.stopped.Store(true)
	return c.stop()
}

func (c *Client) send(method, path string, body any, header []string) *Response {
	c.t.Helper()
	content, isJSON := reader(c.t, body)
	req, err := http.NewRequestWithContext(context.Background(), method, c.URL(path), content)
	if err != nil {
		c.t.Fatalf("waketest: %s %s: %v", method, path, err)
	}
	if isJSON {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := c.http.Do(req)
	if err != nil {
		c.t.Fatalf("waketest: %s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	read, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatalf("waketest: %s %s: read the answer: %v", method, path, err)
	}
	return &Response{c.t, res.StatusCode, res.Header, read}
}

func reader(t testing.TB, body any) (_ io.Reader, isJSON bool) {
	t.Helper()
	switch b := body.(type) {
	case nil:
		return http.NoBody, false
	case string:
		return strings.NewReader(b), false
	case []byte:
		return bytes.NewReader(b), false
	case io.Reader:
		return b, false
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		t.Fatalf("waketest: encode the body: %v", err)
	}
	return bytes.NewReader(encoded), true
}

type exchangeKey struct{}

// receive is outside of all that the application does with a request, where
// there are no tasks yet.
func (c *Client) receive(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get(idHeader)
		r.Header.Del(idHeader)
		found, ok := c.pending.Load(id)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		x := found.(*exchange)
		x.arrived.Store(true)
		defer func() {
			if !x.watched.Load() { // middleware has answered by itself
				close(x.ended)
			}
		}()
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x)))
	})
}

// watch learns when the tasks of a request have ended.
func watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if x, ok := r.Context().Value(exchangeKey{}).(*exchange); ok && x.watched.CompareAndSwap(false, true) {
			background.From(r.Context()).OnEnd(func() { close(x.ended) })
		}
		next.ServeHTTP(w, r)
	})
}

// A transport returns an answer when the request's tasks have ended.
type transport struct {
	client *Client
	http   *http.Transport
}

func (t *transport) CloseIdleConnections() { t.http.CloseIdleConnections() }

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	id := strconv.FormatUint(t.client.last.Add(1), 10)
	x := &exchange{ended: make(chan struct{})}
	t.client.pending.Store(id, x)
	defer t.client.pending.Delete(id)
	req = req.Clone(req.Context())
	req.Header.Set(idHeader, id)
	res, err := t.http.RoundTrip(req)
	if err != nil || res.StatusCode == http.StatusSwitchingProtocols {
		return res, err
	}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		res.Body = newPump(res.Body)
		return res, nil
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	res.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failing{err}))
	if !x.arrived.Load() {
		return res, nil // it was net/http that answered
	}
	select {
	case <-x.ended:
	case <-after(t.client.patience):
		t.client.t.Errorf("waketest: the tasks of %s %s have not ended after %v", req.Method, req.URL.Path, t.client.patience)
	}
	return res, nil
}

// after is [time.After], and never for a patience of 0.
func after(patience time.Duration) <-chan time.Time {
	if patience == 0 {
		return nil
	}
	return time.After(patience)
}

// failing ends a body the way it ended on the wire.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return 0, io.EOF
}
