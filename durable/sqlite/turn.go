package sqlite

import (
	"context"
	"errors"
	"fmt"

	"github.com/wake-go/wake/durable"
)

// errRolledBack is what the statements of a transaction get that SQLite has
// rolled back because of an error.
var errRolledBack = fmt.Errorf("durable: sqlite: %w: an error of one of its statements, or the end of its context, has rolled it back", durable.ErrTxDone)

var errInside = errors.New("durable: sqlite: this is inside of a function given to Queue.InTx, which another transaction would wait for, and it for that: use the transaction that the function has got")

// enterGate waits for the connection's turn to write.
func (c *conn) enterGate(ctx context.Context) error {
	if durable.Joined(ctx, c.store) {
		return errInside
	}
	return c.store.enter(ctx, false)
}

// enter takes the gate for a statement that writes outside of a transaction.
// In one that was begun by hand, the first such statement keeps it.
func (c *conn) enter(ctx context.Context, v verb) (leave func(), err error) {
	if c.direct || c.inTx || c.gated || v != writes && v != locks {
		return func() {}, nil
	}
	if err := c.enterGate(ctx); err != nil {
		return nil, err
	}
	if !c.byHand && v == writes {
		return c.store.leave, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gated = true
	return func() {}, nil
}

// lookAtHand finds out whether the connection is in a transaction that was
// begun by hand, and gives the gate back if it is not any more. Any statement
// may have ended it, as some errors do. SQLite says it by whether one can begin.
func (c *conn) lookAtHand() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.direct || c.inTx {
		return
	}
	_, err := c.innerConn.ExecContext(context.Background(), `BEGIN`, nil)
	c.byHand = err != nil
	if c.byHand {
		return
	}
	_, _ = c.innerConn.ExecContext(context.Background(), `ROLLBACK`, nil)
	if c.gated {
		c.gated = false
		c.store.leave()
	}
}

// IsValid is asked when a connection goes back to its pool. One that is in a
// transaction is closed, or it would keep the write lock for ever.
func (c *conn) IsValid() bool { return !c.byHand && c.innerConn.IsValid() }
