//go:build unix

package load

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// A polled connection is asked whether its answer has come.
type polled struct {
	conn    *net.TCPConn
	raw     syscall.RawConn
	request []byte
	buffer  [4096]byte
	got     int // bytes of the answer
	length  int // of the answer; 0 until it is known
	sent    time.Time
}

func dialPolled(addr string, request []byte) (*polled, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	tcp := c.(*net.TCPConn)
	raw, err := tcp.SyscallConn()
	return &polled{conn: tcp, raw: raw, request: request}, err
}

func (c *polled) send() error {
	c.sent = time.Now()
	_, err := c.conn.Write(c.request)
	return err
}

// poll reads what there is and reports whether the answer is complete. Its
// length is that of the first one: all are the same.
func (c *polled) poll() (answered bool, err error) {
	var n int
	var failed error
	err = c.raw.Read(func(fd uintptr) bool {
		n, failed = syscall.Read(int(fd), c.buffer[c.got:])
		return true
	})
	switch {
	case err != nil:
		return false, err
	case failed == syscall.EAGAIN || failed == syscall.EINTR:
		return false, nil
	case failed != nil:
		return false, failed
	case n == 0:
		return false, io.ErrUnexpectedEOF
	}
	c.got += n
	if c.length == 0 {
		if c.length, err = answerLength(c.buffer[:c.got]); err != nil {
			return false, err
		}
	}
	if c.length == 0 || c.got < c.length {
		return false, nil
	}
	if c.got > c.length {
		return false, fmt.Errorf("an answer has %d bytes, the first one had %d", c.got, c.length)
	}
	if !bytes.HasPrefix(c.buffer[:], ok) {
		return false, fmt.Errorf("the server answered %q", c.buffer[:c.got])
	}
	c.got = 0
	return true, nil
}
