package sqlite_test

import (
	"fmt"
	"testing"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/sqlite"
)

// With more kinds than one statement takes, the most urgent tasks still come
// first, and no kind is left behind.
func TestClaimOfManyKinds(t *testing.T) {
	s := open(t, sqlite.Config{Relaxed: true})
	n := newNode()
	if _, err := s.Register(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	var ins []durable.Insert
	for i := range 150 {
		in := newInsert(fmt.Sprintf("k%03d", i))
		in.Priority = i % 3
		kinds, ins = append(kinds, in.Kind), append(ins, in)
	}
	commit(t, s, &durable.Batch{Inserts: ins})
	var order []durable.Claimed
	for len(order) < len(ins) {
		res := commit(t, s, &durable.Batch{Boot: n.Boot, Claims: []durable.Claim{{Queue: durable.DefaultQueue, Kinds: kinds, Limit: 7}}})
		if len(res.Claimed) == 0 {
			t.Fatalf("%d of %d tasks were claimed", len(order), len(ins))
		}
		order = append(order, res.Claimed...)
	}
	for i := range order[1:] {
		if a, b := order[i], order[i+1]; a.Priority < b.Priority || a.Priority == b.Priority && a.Ref.Seq > b.Ref.Seq {
			t.Fatalf("%s of priority %d was claimed before %s of priority %d", a.Kind, a.Priority, b.Kind, b.Priority)
		}
	}
}
