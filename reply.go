package wake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"sync"
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
	checkStatus(code)
	r.status = code
}

func checkStatus(code int) {
	if code < 200 || code > 599 {
		panic(fmt.Sprintf("wake: status %d; an answer's status is between 200 and 599", code))
	}
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

// An answer is what an operation has returned, encoded and not yet sent.
type answer struct {
	status      int
	contentType string // empty: there is no body
	body        []byte
	buffer      *jsonBuffer  // where the body is
	handler     http.Handler // answers instead
}

// send sends the answer. From here on there is no other.
func (a *answer) send(req *request) {
	req.answered = true
	if req.in.drain.Err() != nil { // since the request came, perhaps
		req.w.Header().Set("Connection", "close")
	}
	if a.handler != nil {
		a.serve(req)
		return
	}
	code := req.response.apply(req.w, a.status)
	if a.contentType != "" {
		req.setContentType(a.contentType)
	}
	req.wrote = true
	if a.contentType == "" || code == http.StatusNoContent || code == http.StatusNotModified {
		req.w.WriteHeader(code)
	} else {
		req.write(code, a.body)
	}
	req.in.host.json.putBack(a.buffer)
}

// serve lets the operation's own handler answer.
func (a *answer) serve(req *request) {
	w := req.w
	req.wrote = true // or may have: a panic cuts the connection
	if status := req.response.apply(w, 0); status != 0 {
		w = &statusWriter{ResponseWriter: w, status: status}
	}
	a.handler.ServeHTTP(w, req.r)
}

// setContentType sets the body's type where nobody has. It does what
// [http.Header.Set] does, without an allocation.
func (r *request) setContentType(value string) {
	const name = "Content-Type"
	h := r.w.Header()
	if v := h[name]; len(v) == 0 || v[0] == "" {
		r.contentType[0] = value
		h[name] = r.contentType[:]
	}
}

// autoLength is the size up to which net/http finds out the length of a body
// by itself.
const autoLength = 2048

func (r *request) write(code int, body []byte) {
	if len(body) > autoLength {
		r.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	r.w.WriteHeader(code)
	_, _ = r.w.Write(body) // a client that has gone changes nothing
}

func handlerAnswer(out any) (answer, error) {
	h, _ := out.(http.Handler)
	if v := reflect.ValueOf(out); h == nil || (v.Kind() == reflect.Pointer || v.Kind() == reflect.Func) && v.IsNil() {
		return answer{}, fmt.Errorf("the operation returned a nil http.Handler and no error")
	}
	return answer{handler: h}, nil
}

// maxKept is the largest buffer that is kept for other answers.
const maxKept = 64 << 10

// A jsonPool encodes answers into memory that is used again.
type jsonPool struct{ buffers sync.Pool }

// A jsonBuffer is a buffer with its encoder.
type jsonBuffer struct {
	bytes.Buffer
	encoder *json.Encoder
}

func newJSONBuffer() *jsonBuffer {
	b := &jsonBuffer{}
	b.encoder = json.NewEncoder(&b.Buffer)
	b.encoder.SetEscapeHTML(false)
	return b
}

func (p *jsonPool) answer(status int, out any) (answer, error) {
	b, _ := p.buffers.Get().(*jsonBuffer)
	if b == nil {
		b = newJSONBuffer()
	}
	if err := b.encoder.Encode(out); err != nil {
		return answer{}, fmt.Errorf("encode the answer: %w", err)
	}
	return answer{status: status, contentType: "application/json", body: b.Bytes(), buffer: b}, nil
}

// putBack takes a buffer whose answer has been sent.
func (p *jsonPool) putBack(b *jsonBuffer) {
	if b != nil && b.Cap() <= maxKept {
		b.Reset()
		p.buffers.Put(b)
	}
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
