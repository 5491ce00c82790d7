package wake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// A Response is what an operation sets of its answer besides the body. It is
// applied only when the operation succeeds; an error has its own, see [Error].
// It is not safe for use by several goroutines.
type Response struct {
	status int
	header http.Header
}

// Status sets the status of a successful answer. Defaults to the operation's.
func (r *Response) Status(code int) {
	if code < 200 || code > 599 {
		panic(fmt.Sprintf("wake: status %d; an answer's status is between 200 and 599", code))
	}
	r.status = code
}

// Header returns the header of a successful answer, to be changed.
func (r *Response) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}

// SetCookie adds a cookie to a successful answer.
func (r *Response) SetCookie(c *http.Cookie) {
	if s := c.String(); s != "" {
		r.Header().Add("Set-Cookie", s)
	}
}

// apply sets the header and returns the status.
func (r *Response) apply(w http.ResponseWriter, status int) int {
	h := w.Header()
	for name, values := range r.header {
		h[name] = values
	}
	if r.status != 0 {
		return r.status
	}
	return status
}

// autoLength is the size up to which net/http finds out the length of a body
// by itself.
const autoLength = 2048

func jsonReply(status int, out any, req *request) (func(huma.Context), error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(out); err != nil {
		return nil, fmt.Errorf("encode the answer: %w", err)
	}
	return func(huma.Context) {
		code := req.response.apply(req.w, status)
		h := req.w.Header()
		if h.Get("Content-Type") == "" {
			h.Set("Content-Type", "application/json")
		}
		req.write(code, b.Bytes())
	}, nil
}

func bytesReply(status int, body []byte, req *request) func(huma.Context) {
	return func(huma.Context) {
		code := req.response.apply(req.w, status)
		if h := req.w.Header(); h.Get("Content-Type") == "" {
			h.Set("Content-Type", "application/octet-stream")
		}
		req.write(code, body)
	}
}

func emptyReply(status int, req *request) func(huma.Context) {
	return func(huma.Context) {
		req.wrote = true
		req.w.WriteHeader(req.response.apply(req.w, status))
	}
}

func (r *request) write(code int, body []byte) {
	r.wrote = true
	if code == http.StatusNoContent || code == http.StatusNotModified {
		r.w.WriteHeader(code)
		return
	}
	if len(body) > autoLength {
		r.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	r.w.WriteHeader(code)
	_, _ = r.w.Write(body) // a client that has gone changes nothing
}

func handlerReply(out any, req *request) (func(huma.Context), error) {
	h, _ := out.(http.Handler)
	if v := reflect.ValueOf(out); h == nil || (v.Kind() == reflect.Pointer || v.Kind() == reflect.Func) && v.IsNil() {
		return nil, fmt.Errorf("the operation returned a nil http.Handler and no error")
	}
	return func(huma.Context) {
		w := req.w
		req.wrote = true // or may have: a panic cuts the connection
		if status := req.response.apply(w, 0); status != 0 {
			w = &statusWriter{ResponseWriter: w, status: status}
		}
		h.ServeHTTP(w, req.r)
	}, nil
}

// A statusWriter answers with the status that the operation chose.
type statusWriter struct {
	http.ResponseWriter
	status int
	wrote  bool
}

func (w *statusWriter) WriteHeader(code int) {
	if !w.wrote && code == http.StatusOK {
		code = w.status
	}
	w.wrote = w.wrote || code >= 200
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
