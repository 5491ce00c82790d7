// Package load sends HTTP requests at servers from clients that cost little:
// keep-alive connections, requests encoded once, answers read no further than
// needed.
package load

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strconv"
)

// Get encodes a GET request.
func Get(path string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: bench\r\n\r\n")
}

// Post encodes a POST request with a JSON body.
func Post(path, body string) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

// A Conn is a keep-alive connection that sends one request again and again.
type Conn struct {
	conn    net.Conn
	answers *bufio.Reader
	request []byte
	body    []byte
}

// Dial connects to a server.
func Dial(addr string, request []byte) (*Conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Conn{conn: c, answers: bufio.NewReader(c), request: request}, nil
}

// Close closes the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Body is the body of the last answer, until the next request.
func (c *Conn) Body() []byte { return c.body }

// Do sends the request and reads the answer, which must have status 200 and a
// length.
func (c *Conn) Do() error {
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	line, err := c.answers.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, ok) {
		return fmt.Errorf("the server answered %q", bytes.TrimSpace(line))
	}
	length := -1
	for len(bytes.TrimSpace(line)) > 0 {
		if line, err = c.answers.ReadSlice('\n'); err != nil {
			return err
		}
		if value, found := bytes.CutPrefix(line, contentLength); found {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return fmt.Errorf("the answer has no length")
	}
	if c.body, err = c.answers.Peek(length); err != nil {
		return err
	}
	_, err = c.answers.Discard(length)
	return err
}

var (
	ok            = []byte("HTTP/1.1 200 ")
	contentLength = []byte("Content-Length: ")
)

// answerLength returns the length of the whole answer that begins with b; 0 if
// its header is not complete.
func answerLength(b []byte) (int, error) {
	header, _, complete := bytes.Cut(b, []byte("\r\n\r\n"))
	if !complete {
		return 0, nil
	}
	_, rest, found := bytes.Cut(header, contentLength)
	if !found {
		return 0, fmt.Errorf("the answer has no length")
	}
	value, _, _ := bytes.Cut(rest, []byte("\r\n"))
	n, err := strconv.Atoi(string(value))
	return len(header) + 4 + n, err
}
