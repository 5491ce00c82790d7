package memory_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/memory"
	"github.com/wake-go/wake/durable/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(*testing.T) *storetest.Fixture {
	s := memory.New(memory.Config{})
	return &storetest.Fixture{
		Store:   s,
		Advance: s.Advance,
		Reopen:  func() durable.Store { return s },
		Crash:   func() {}, // its boots are not heard of any more
		Close:   func() { _ = s.Close() },
	}
}

func TestConformance(t *testing.T) { storetest.Run(t, open) }

func TestModel(t *testing.T) { storetest.Model(t, open) }
