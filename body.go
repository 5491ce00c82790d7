package wake

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// A limitedBody bounds a request's body in size and time. The limit can be
// raised by the operation, which is known only after routing, until the first
// read.
type limitedBody struct {
	io.ReadCloser // the server's
	w             http.ResponseWriter
	limit         int64
	timeout       time.Duration
	reader        io.Reader
	err           error // the first one, other than the body's end
}

// limitBody bounds r's body, if it has one.
func limitBody(w http.ResponseWriter, r *http.Request, limit int64, timeout time.Duration) {
	if _, limited := r.Body.(*limitedBody); limited {
		return // by the application that this one is mounted in
	}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &limitedBody{ReadCloser: r.Body, w: w, limit: limit, timeout: timeout}
	}
}

func (b *limitedBody) Read(p []byte) (int, error) {
	if b.reader == nil {
		b.reader = http.MaxBytesReader(b.w, b.ReadCloser, b.limit)
		b.setDeadline(time.Now().Add(b.timeout))
	}
	n, err := b.reader.Read(p)
	switch {
	case err == io.EOF:
		// Else the deadline would end a long handler's request: net/http goes
		// on reading to see whether the client leaves.
		b.setDeadline(time.Time{})
	case err != nil && b.err == nil:
		b.err = err
	}
	return n, err
}

// problem tells the client what was wrong with its body; nil if it was read.
func (b *limitedBody) problem() *huma.ErrorModel {
	if b == nil || b.err == nil {
		return nil
	}
	var tooLarge *http.MaxBytesError
	var network net.Error
	switch {
	case errors.As(b.err, &tooLarge):
		return bodyTooLarge(b.limit)
	case errors.As(b.err, &network) && network.Timeout():
		return newProblem(http.StatusRequestTimeout, fmt.Sprintf("The request's body did not arrive within %v.", b.timeout))
	}
	return newProblem(http.StatusBadRequest, "The request's body could not be read to its end.")
}

func bodyTooLarge(limit int64) *huma.ErrorModel {
	return newProblem(http.StatusRequestEntityTooLarge, fmt.Sprintf("The request's body is larger than the %d bytes that are accepted here.", limit))
}

// setDeadline does nothing where there is no connection: in a recorder.
func (b *limitedBody) setDeadline(t time.Time) {
	_ = http.NewResponseController(b.w).SetReadDeadline(t)
}
