// Package storetest is the suite that every [durable.Store] has to pass: [Run]
// has a test for each promise of the interface, and [Model] compares a store
// with a model of it over random operations.
//
//	func TestStore(t *testing.T) { storetest.Run(t, open) }
//	func TestModel(t *testing.T) { storetest.Model(t, open) }
package storetest

import (
	"database/sql"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
)

// A Fixture is a new, empty store and what a test can do with its surroundings.
type Fixture struct {
	Store durable.Store

	// Advance moves the store's time forward, as all handles see it.
	Advance func(d time.Duration)

	// Reopen opens another handle on the same tasks, as another process does,
	// or the same one after a crash. Nil if there is no such thing.
	Reopen func() durable.Store

	// Crash drops Store as a process that is killed does: without clean-up. The
	// suite calls Reopen then, and lets Store be the new handle. Whether the
	// death is proved, or the leases of the dead have to end, is the store's
	// matter. Nil if there is no such thing.
	Crash func()

	// DB is the database that the store is on, and BeginTx begins a transaction
	// on it that the store accepts. Nil if the store has no SQL.
	DB      *sql.DB
	BeginTx func() *sql.Tx

	// Close closes Store and every other handle, which may be closed already.
	// Nil if there is nothing to do.
	Close func()
}

func (f *Fixture) close() {
	if f.Close != nil {
		f.Close()
	}
}

// Run runs the suite. Each test opens a store of its own.
func Run(t *testing.T, open func(t *testing.T) *Fixture) {
	for _, part := range []struct {
		name  string
		tests []test
	}{
		{"commit", commitTests()},
		{"claim", claimTests()},
		{"finish", finishTests()},
		{"key", keyTests()},
		{"repeat", repeatTests()},
		{"node", nodeTests()},
		{"task", taskTests()},
		{"list", listTests()},
		{"schedule", scheduleTests()},
		{"fire", fireTests()},
		{"transaction", txTests()},
		{"shared transaction", sharedTests()},
		{"watch", watchTests()},
		{"load", loadTests()},
	} {
		t.Run(part.name, func(t *testing.T) {
			for _, test := range part.tests {
				t.Run(test.name, func(t *testing.T) {
					f := open(t)
					t.Cleanup(f.close)
					test.run(newKit(t, f))
				})
			}
		})
	}
}

// test is one test of the suite. Its name is a sentence.
type test struct {
	name string
	run  func(k *kit)
}
