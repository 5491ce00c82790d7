package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/wake-go/wake/durable"
)

// Codes of errors.
const (
	codeSerialization = "40001"
	codeDeadlock      = "40P01"
	codeLockTimeout   = "55P03"
	codeDiskFull      = "53100"
	codeReadOnly      = "25006"
)

// explained turns an error of the driver into one that says what to do, and
// that matches what it means for the caller. Only what is wrong with the data
// itself is an error that another try would not change.
func explained(err error) error {
	var server *pgconn.PgError
	switch {
	case err == nil || errors.Is(err, durable.ErrUnknown) || errors.Is(err, durable.ErrUnavailable):
		return err
	case errors.As(err, &server):
		return explainedCode(server, err)
	case isConnection(err):
		return fmt.Errorf("%w: the database cannot be reached: %w", durable.ErrUnavailable, err)
	}
	return err
}

func explainedCode(server *pgconn.PgError, err error) error {
	switch server.Code {
	case codeDiskFull:
		return fmt.Errorf("%w: %w: %w", durable.ErrUnavailable, durable.ErrFull, err)
	case codeReadOnly:
		return fmt.Errorf("%w: the server only reads, as a standby does: %w", durable.ErrUnavailable, err)
	case codeLockTimeout:
		return fmt.Errorf("%w: an open transaction holds what it needs: %w", durable.ErrUnavailable, err)
	}
	switch server.Code[:min(2, len(server.Code))] {
	case "22", "23", "54": // the data, a constraint, a limit
		return err
	}
	return fmt.Errorf("%w: %w", durable.ErrUnavailable, err)
}

// isConnection reports whether an error is one of a connection, and of none
// of its statements.
func isConnection(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	if errors.As(err, &connect) || errors.As(err, &network) || pgconn.SafeToRetry(err) || pgconn.Timeout(err) {
		return true
	}
	for _, end := range []error{
		context.Canceled, context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
		syscall.ECONNRESET, syscall.EPIPE, pgconn.ErrConnClosed,
	} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

func hasCode(err error, codes ...string) bool {
	var server *pgconn.PgError
	if !errors.As(err, &server) {
		return false
	}
	for _, code := range codes {
		if server.Code == code {
			return true
		}
	}
	return false
}

// hasAnyCode reports whether the server has answered.
func hasAnyCode(err error) bool {
	var server *pgconn.PgError
	return errors.As(err, &server)
}

// isTransient reports whether a transaction that was rolled back with err is
// likely to go through when it is tried again at once.
func isTransient(err error) bool { return hasCode(err, codeSerialization, codeDeadlock) }

// isFatal reports whether the server has ended the session with err.
func isFatal(err error) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) && server.SeverityUnlocalized == "FATAL"
}

// isStale reports whether a connection had ended before anything was asked of
// it.
func isStale(err error) bool {
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return false // there is no new one, either
	}
	return isFatal(err) || pgconn.SafeToRetry(err)
}
