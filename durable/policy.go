package durable

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// DefaultQueue is the queue of tasks that choose none.
const DefaultQueue = "default"

// A Policy is how the tasks of a kind are run. [Option] functions set it.
type Policy struct {
	// Queue is where its tasks wait. Defaults to [DefaultQueue].
	Queue string

	// Priority: of the tasks that wait in a queue, those with a greater one run
	// first. Between -1,000 and 1,000; defaults to 0.
	Priority int

	// MaxAttempts is how often a task may fail before it is dead. Defaults to
	// 15, which with the default Backoff is about four hours.
	MaxAttempts int

	// Backoff returns how long to wait after a failed attempt, the first one
	// being 1. Defaults to [Exponential](time.Second, time.Hour).
	Backoff func(attempt int, err error) time.Duration

	// RetryIf reports whether there is sense in another attempt after err.
	// Defaults to always.
	RetryIf func(err error) bool

	// Timeout ends the context of an attempt, with cause [ErrTimeout]; what the
	// handler returns then counts. Zero or negative is none, the default.
	Timeout time.Duration

	// HardTimeout gives an attempt up: it counts as failed, its worker goes on,
	// and the log has the stack of the goroutine, which Go cannot end. Zero or
	// negative is none, the default.
	HardTimeout time.Duration

	// Lane is where the handler runs, see [EngineConfig].
	Lane string

	// Requeue lets a task in memory that a drain cut short be run again from
	// the queue: it may run twice then. A matter for package wake.
	Requeue bool

	// Local says that a program that adds such a task must be able to run it:
	// its kind was declared together with its function. A matter for package
	// wake.
	Local bool

	// Aliases are names that the kind had before, and still answers to.
	Aliases []string
}

// An Option sets a part of a kind's Policy.
type Option func(*Policy)

// OnQueue puts tasks into another queue than [DefaultQueue].
func OnQueue(name string) Option { return func(p *Policy) { p.Queue = name } }

// WithPriority sets Policy.Priority.
func WithPriority(n int) Option { return func(p *Policy) { p.Priority = n } }

// MaxAttempts sets Policy.MaxAttempts.
func MaxAttempts(n int) Option { return func(p *Policy) { p.MaxAttempts = n } }

// WithBackoff sets Policy.Backoff.
func WithBackoff(f func(attempt int, err error) time.Duration) Option {
	return func(p *Policy) { p.Backoff = f }
}

// RetryIf sets Policy.RetryIf.
func RetryIf(f func(error) bool) Option { return func(p *Policy) { p.RetryIf = f } }

// Timeout sets Policy.Timeout.
func Timeout(d time.Duration) Option { return func(p *Policy) { p.Timeout = d } }

// HardTimeout sets Policy.HardTimeout.
func HardTimeout(d time.Duration) Option { return func(p *Policy) { p.HardTimeout = d } }

// Lane sets Policy.Lane.
func Lane(name string) Option { return func(p *Policy) { p.Lane = name } }

// Requeue sets Policy.Requeue.
func Requeue() Option { return func(p *Policy) { p.Requeue = true } }

// Aliases sets Policy.Aliases.
func Aliases(names ...string) Option { return func(p *Policy) { p.Aliases = names } }

// Exponential returns a Backoff that begins with first, doubles with each
// attempt up to most, and varies by a quarter either way, so that what failed
// together does not come back together.
func Exponential(first, most time.Duration) func(int, error) time.Duration {
	if first <= 0 || most < first {
		panic(fmt.Sprintf("durable: Exponential(%v, %v); the first wait must be positive and the longest not shorter", first, most))
	}
	first, most = min(first, maxDelay), min(most, maxDelay)
	return func(attempt int, _ error) time.Duration {
		d := first
		for range attempt - 1 {
			if d *= 2; d >= most || d <= 0 {
				d = most
				break
			}
		}
		return d + time.Duration((rand.Float64()-0.5)/2*float64(d))
	}
}

// Constant returns a Backoff that always waits for d.
func Constant(d time.Duration) func(int, error) time.Duration {
	return func(int, error) time.Duration { return d }
}

func newPolicy(kind string, opts []Option) Policy {
	var p Policy
	for _, set := range opts {
		set(&p)
	}
	p = p.withDefaults()
	if err := p.validate(kind); err != nil {
		panic(err.Error())
	}
	return p
}

func (p Policy) withDefaults() Policy {
	if p.Queue == "" {
		p.Queue = DefaultQueue
	}
	if p.MaxAttempts == 0 {
		p.MaxAttempts = 15
	}
	if p.Backoff == nil {
		p.Backoff = Exponential(time.Second, time.Hour)
	}
	if p.RetryIf == nil {
		p.RetryIf = func(error) bool { return true }
	}
	return p
}

func (p *Policy) validate(kind string) error {
	for _, name := range append([]string{kind}, p.Aliases...) {
		if err := checkName("kind", name); err != nil {
			return err
		}
	}
	switch {
	case slices.Contains(p.Aliases, kind):
		return fmt.Errorf("durable: kind %q has itself as an alias; aliases are its earlier names", kind)
	case p.MaxAttempts < 1 || p.MaxAttempts > maxAttempts:
		return fmt.Errorf("durable: MaxAttempts of %q is %d; it must be between 1 and %d", kind, p.MaxAttempts, maxAttempts)
	case p.HardTimeout > 0 && p.Timeout > p.HardTimeout:
		return fmt.Errorf("durable: Timeout of %q (%v) is longer than its HardTimeout (%v), which would never let it come to that", kind, p.Timeout, p.HardTimeout)
	}
	if err := checkPriority(p.Priority); err != nil {
		return fmt.Errorf("%w (kind %q)", err, kind)
	}
	return checkName("queue", p.Queue)
}

const (
	maxPriority = 1000
	maxAttempts = 10_000
	maxName     = 128
	maxKey      = 512
	maxTags     = 16
	maxDelay    = 10 * 366 * 24 * time.Hour
)

func checkPriority(n int) error {
	if n < -maxPriority || n > maxPriority {
		return fmt.Errorf("durable: priority %d; it must be between %d and %d", n, -maxPriority, maxPriority)
	}
	return nil
}

// checkName checks what ends up in columns, labels and URLs.
func checkName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("durable: a %s needs a name", what)
	case len(name) > maxName:
		return fmt.Errorf("durable: the %s name %q is longer than %d bytes", what, shortened(name, 40), maxName)
	}
	return checkText(what+" name", name)
}

// checkText refuses what no store can be relied on to keep.
func checkText(what, s string) error {
	if !utf8.ValidString(s) {
		return fmt.Errorf("durable: the %s %q is not UTF-8", what, shortened(s, 40))
	}
	if i := strings.IndexFunc(s, unicode.IsControl); i >= 0 {
		return fmt.Errorf("durable: the %s %q has a control character at byte %d; leave it out", what, shortened(s, 40), i)
	}
	return nil
}
