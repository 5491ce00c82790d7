//go:build !unix

package load

import (
	"errors"
	"net"
	"time"
)

type polled struct {
	conn net.Conn
	sent time.Time
}

func dialPolled(string, []byte) (*polled, error) { return nil, errors.ErrUnsupported }

func (c *polled) send() error { return errors.ErrUnsupported }

func (c *polled) poll() (bool, error) { return false, errors.ErrUnsupported }
