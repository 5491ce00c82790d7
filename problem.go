package wake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/durable"
)

// An Error is an error that the client may see, as a problem document
// (RFC 9457). [Errorf] makes one; a literal can add headers and a cause.
type Error struct {
	// Status is the answer's status, from 300 to 599.
	Status int

	// Detail is shown to the client.
	Detail string

	// Header is added to the answer's header.
	Header http.Header

	// Err is the cause. It is logged and never shown.
	Err error
}

// Errorf makes an error that the client may see. The whole message is shown,
// also what %w or %v put into it: use [Error] and its Err for a cause that
// must not leave the program.
func Errorf(status int, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Status: status, Detail: err.Error(), Err: errors.Unwrap(err)}
}

func (e *Error) Error() string {
	if e.Err == nil || e.Err.Error() == e.Detail {
		return e.Detail
	}
	return e.Detail + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// GetStatus returns the status, for Huma.
func (e *Error) GetStatus() int { return e.Status }

// ErrorDetail returns what a client may see of an error that a resolver has
// returned, for Huma.
func (e *Error) ErrorDetail() *huma.ErrorDetail {
	return &huma.ErrorDetail{Message: e.Detail, Value: shown{}}
}

// shown marks a detail whose text was made for the client.
type shown struct{}

// Problem texts of what Wake answers by itself.
const (
	detailInternal = "The server could not answer this request. The error has been logged."
	detailBusy     = "The server has too much work waiting. Try again."
	detailUnkept   = "The server could not keep the work that this request asks for. Try again."
	detailStore    = "The server cannot use its task store at the moment. Try again."
	detailStopping = "The server is about to stop. Try again."
	detailNotFound = "There is nothing at this path."
)

// retryAfter is what 503 answers suggest, in seconds: a lane that is full now
// has usually moved on by then.
const retryAfter = "1"

// problem turns an operation's error into what the client is shown. logged is
// whether the error is one for the log.
func problem(err error) (model *huma.ErrorModel, header http.Header, logged bool) {
	var own *Error
	var status huma.StatusError
	var commit *commitError
	switch {
	case errors.As(err, &commit):
		return newProblem(http.StatusServiceUnavailable, detailUnkept), http.Header{"Retry-After": {retryAfter}}, true
	case errors.As(err, &own):
		code := own.Status
		if code < 300 || code > 599 {
			code = http.StatusInternalServerError
		}
		return newProblem(code, own.Detail), own.Header, code >= 500
	case errors.Is(err, durable.ErrUnavailable):
		return newProblem(http.StatusServiceUnavailable, detailStore), http.Header{"Retry-After": {retryAfter}}, true
	case errors.Is(err, background.ErrFull):
		return newProblem(http.StatusServiceUnavailable, detailBusy), http.Header{"Retry-After": {retryAfter}}, true
	case errors.Is(err, background.ErrClosed), errors.Is(err, durable.ErrClosed), errors.Is(err, ErrDraining):
		return newProblem(http.StatusServiceUnavailable, detailStopping), http.Header{"Retry-After": {retryAfter}}, false
	case errors.As(err, &status) && status.GetStatus() < 500:
		var given *huma.ErrorModel
		if errors.As(err, &given) {
			copied := *given
			model = &copied
		} else {
			model = newProblem(status.GetStatus(), status.Error())
		}
		var with huma.HeadersError
		if errors.As(err, &with) {
			header = with.GetHeaders()
		}
		return model, header, false
	}
	return newProblem(http.StatusInternalServerError, detailInternal), nil, true
}

func newProblem(status int, detail string) *huma.ErrorModel {
	return &huma.ErrorModel{Status: status, Title: http.StatusText(status), Detail: detail}
}

// clientGone reports whether err is only the echo of a client that left.
func clientGone(ctx context.Context, err error) bool {
	return errors.Is(err, context.Canceled) && context.Cause(ctx) == context.Canceled
}

// writeProblem answers with a problem document, for what is not an operation.
func writeProblem(w http.ResponseWriter, model *huma.ErrorModel) {
	body, err := json.Marshal(model)
	if err != nil { // strings and numbers always encode
		body = []byte(`{"status":500}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(model.Status)
	w.Write(body)
}

// sanitize is Huma's last word on every error it writes by itself: no value
// that the client sent is echoed (it may be a secret), and nothing internal
// is told with a 5xx.
func (h *host) sanitize(ctx huma.Context, _ string, v any) (any, error) {
	given, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	model := *given
	req := requestOf(ctx.Context())
	if req != nil {
		if unread := req.body.problem(); unread != nil {
			return unread, nil
		}
	}
	if hidden := unexplained(given); hidden != nil && req != nil {
		logFor(ctx.Context()).Error("a resolver failed", "operation", req.Operation().Method+" "+req.Operation().Path, "error", hidden)
		req.fault = true
		model = *newProblem(http.StatusInternalServerError, detailInternal)
	}
	if model.Status >= 500 {
		if model.Detail == "unexpected error occurred" { // an operation registered with Huma itself
			logFor(ctx.Context()).Error("operation failed", "error", errors.Join(detailErrors(model.Errors)...))
			model.Detail = detailInternal
		}
		model.Errors = nil
		model.Instance = instanceOf(ctx.Context())
		return &model, nil
	}
	model.Errors = make([]*huma.ErrorDetail, 0, len(given.Errors))
	for _, e := range given.Errors {
		if e == nil {
			continue
		}
		message := e.Message
		if model.Status == http.StatusUnsupportedMediaType {
			message = "unknown content type" // Huma's repeats the header
		}
		model.Errors = append(model.Errors, &huma.ErrorDetail{Message: message, Location: e.Location})
	}
	return &model, nil
}

// unexplained returns the errors of resolvers that are no statement about the
// input: Huma shows the text of any error that a resolver returns. A statement
// says where ([huma.ErrorDetail]), or chooses a status.
func unexplained(model *huma.ErrorModel) error {
	if model.Detail != "validation failed" || model.Status != http.StatusUnprocessableEntity {
		return nil
	}
	var errs []error
	for _, e := range model.Errors {
		if e != nil && e.Location == "" && e.Value == nil {
			errs = append(errs, e)
		}
	}
	return errors.Join(errs...)
}

func detailErrors(details []*huma.ErrorDetail) (errs []error) {
	for _, d := range details {
		if d != nil {
			errs = append(errs, d)
		}
	}
	return errs
}

// instanceOf names the request, so that a client's report can be found in the log.
func instanceOf(ctx context.Context) string {
	if id := background.RequestID(ctx); id != "" {
		return "urn:request:" + id
	}
	return ""
}
