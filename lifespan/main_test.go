package lifespan_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/lifespan"
	"go.uber.org/goleak"
)

// program names the environment variable that makes the test binary one of
// the programs in process_test.go.
const program = "LIFESPAN_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if name := os.Getenv(program); name != "" {
		runProgram(name)
		return
	}
	goleak.VerifyTestMain(m)
}

// bubble runs f with a fake clock, so that limits pass at once and exactly.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// A journal is a list of what happened.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) has(line string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Contains(j.lines, line)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, ", ")
}

// phases is an OnEvent that keeps the phases.
func (j *journal) phases(e lifespan.Event) {
	if p, ok := e.(lifespan.PhaseChanged); ok {
		j.add(p.To.String())
	}
}

// all is an OnEvent that keeps all events but their causes.
func (j *journal) all(e lifespan.Event) {
	switch e := e.(type) {
	case lifespan.PhaseChanged:
		j.add(e.To.String())
	case lifespan.PartEnded:
		j.add("part " + e.Name)
	case lifespan.DrainCut:
		j.add("cut")
	case lifespan.PhaseAbandoned:
		j.add("abandoned " + e.Phase.String())
	}
}

func (j *journal) want(t *testing.T, want string) {
	t.Helper()
	if got := j.String(); got != want {
		t.Errorf("it went\n\t%s\nwant\n\t%s", got, want)
	}
}

// wantError checks that err is one *Error of the phase, and contains the
// targets.
func wantError(t *testing.T, err error, phase lifespan.Phase, targets ...error) {
	t.Helper()
	e, ok := err.(*lifespan.Error)
	if !ok || e.Phase != phase {
		t.Errorf("the error is %T %v; want one *Error in the phase %v", err, err, phase)
		return
	}
	wantIs(t, err, targets...)
}

func wantIs(t *testing.T, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Errorf("the error %v does not contain %v", err, target)
		}
	}
}

func wantNot(t *testing.T, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if errors.Is(err, target) {
			t.Errorf("the error %v contains %v", err, target)
		}
	}
}

func as[T error](t *testing.T, err error) T {
	t.Helper()
	var target T
	if !errors.As(err, &target) {
		t.Fatalf("the error %v contains no %T", err, target)
	}
	return target
}

func wantTook(t *testing.T, began time.Time, want time.Duration) {
	t.Helper()
	if took := time.Since(began); took != want {
		t.Errorf("it took %v, want %v", took, want)
	}
}

// serveUntilStopped is a serve that is ready and waits for its context.
func serveUntilStopped[S any](ctx context.Context, _ S) error {
	lifespan.MarkReady(ctx)
	<-ctx.Done()
	return nil
}

// serveAndEnd is a serve that is ready and ends by itself.
func serveAndEnd[S any](ctx context.Context, _ S) error {
	lifespan.MarkReady(ctx)
	return nil
}

// neverServe fails the test when it is called.
func neverServe[S any](t *testing.T) func(context.Context, S) error {
	return func(context.Context, S) error {
		t.Error("serve was called")
		return nil
	}
}

var (
	errBoom  = errors.New("boom")
	errClean = errors.New("clean-up boom")
)
