package durable

import (
	"context"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
)

// kind is what is known of a kind whatever its argument.
type kind struct {
	name       string
	policy     Policy
	unstorable error // its argument's type cannot be encoded
}

// A Kind is the name of a task and the type of its argument, which is stored
// as JSON. Declare it once, as a package's variable, where both those who add
// the task and those who run it can see it.
type Kind[A any] struct{ kind }

// Declare declares a kind. An empty name, a policy that breaks a rule and a
// type that JSON cannot hold panic.
//
// The name is stored with each task: keep it when the Go names change, or give
// the old one to [Aliases]. Likewise a task that was stored yesterday is
// decoded into today's type: add fields, and do not change what there is.
func Declare[A any](name string, opts ...Option) *Kind[A] {
	k, err := TryDeclare[A](name, opts...)
	if err != nil {
		panic(err.Error())
	}
	return k
}

// TryDeclare is [Declare] for a type that may be one that JSON cannot hold:
// the kind it returns is then good for everything but to be stored, and its
// jobs are refused with the same error.
func TryDeclare[A any](name string, opts ...Option) (*Kind[A], error) {
	k := &Kind[A]{kind{name: name, policy: newPolicy(name, opts)}}
	k.unstorable = checkType(name, "argument", reflect.TypeFor[A](), map[reflect.Type]bool{})
	return k, k.unstorable
}

// Name returns the kind's name.
func (k *Kind[A]) Name() string { return k.name }

// Policy returns how tasks of the kind are run.
func (k *Kind[A]) Policy() Policy { return k.policy }

// Storable returns why tasks of the kind cannot be stored; nil if they can.
func (k *Kind[A]) Storable() error { return k.unstorable }

// With makes a job. The argument is encoded when the job is added.
func (k *Kind[A]) With(arg A) Job { return newJob(&k.kind, arg, encodeJSON) }

// Run makes the kind's handler of a function.
func (k *Kind[A]) Run(run func(context.Context, A) error) Handler {
	if run == nil {
		panic(fmt.Sprintf("durable: kind %q has no function to run", k.name))
	}
	return k.handler(func(ctx context.Context, payload []byte) ([]byte, error) {
		arg, err := decode[A](payload)
		if err != nil {
			return nil, err
		}
		return nil, run(ctx, arg)
	})
}

func (k *kind) handler(run func(context.Context, []byte) ([]byte, error)) Handler {
	return Handler{Kind: k.name, Aliases: k.policy.Aliases, Policy: k.policy, Run: run}
}

// A ResultKind is a [Kind] whose tasks have a result, which is stored as JSON.
type ResultKind[A, R any] struct{ Kind[A] }

// DeclareResult is [Declare] for tasks with a result.
func DeclareResult[A, R any](name string, opts ...Option) *ResultKind[A, R] {
	if err := checkType(name, "result", reflect.TypeFor[R](), map[reflect.Type]bool{}); err != nil {
		panic(err.Error())
	}
	return &ResultKind[A, R]{*Declare[A](name, opts...)}
}

// Run makes the kind's handler of a function.
func (k *ResultKind[A, R]) Run(run func(context.Context, A) (R, error)) Handler {
	if run == nil {
		panic(fmt.Sprintf("durable: kind %q has no function to run", k.name))
	}
	return k.handler(func(ctx context.Context, payload []byte) ([]byte, error) {
		arg, err := decode[A](payload)
		if err != nil {
			return nil, err
		}
		result, err := run(ctx, arg)
		if err != nil {
			return nil, err
		}
		b, err := json.Marshal(result)
		if err != nil {
			return nil, Cancel(fmt.Errorf("encode the result: %w", err))
		}
		return b, nil
	})
}

// A Waiter waits for tasks: a [Queue], or what has one.
type Waiter interface {
	// WaitFor returns the task once it has finished.
	WaitFor(ctx context.Context, id ID) (*Task, error)
}

// Wait waits until a task of the kind has finished and returns its result. A
// task that is dead or cancelled is a [*FailedError].
func (k *ResultKind[A, R]) Wait(ctx context.Context, w Waiter, id ID) (R, error) {
	var result R
	t, err := w.WaitFor(ctx, id)
	if err != nil {
		return result, err
	}
	if t.State != Succeeded {
		return result, &FailedError{Task: *t}
	}
	if err := json.Unmarshal(t.Result, &result); err != nil {
		return result, fmt.Errorf("durable: the result of task %v (%s) does not fit %T: %w", id, t.Kind, result, err)
	}
	return result, nil
}

// A FailedError says that a task that was waited for has not succeeded.
type FailedError struct{ Task Task }

func (e *FailedError) Error() string {
	s := fmt.Sprintf("durable: task %v (%s) is %v", e.Task.ID, e.Task.Kind, e.Task.State)
	if n := len(e.Task.Errors); n > 0 {
		s += ": " + e.Task.Errors[n-1].Message
	}
	return s
}

// A Handler runs the tasks of a kind. Make it with [Kind.Run].
type Handler struct {
	Kind    string
	Aliases []string
	Policy  Policy

	// Run does the work, with the argument as it is stored, and returns the
	// result to be stored.
	Run func(ctx context.Context, payload []byte) ([]byte, error)
}

// errPayload is matched by the error of a task whose argument cannot be
// decoded: no other attempt will change that.
var errPayload = errors.New("the stored argument does not fit")

func decode[A any](payload []byte) (A, error) {
	var arg A
	if err := json.Unmarshal(payload, &arg); err != nil {
		return arg, fmt.Errorf("%w type %T: %w", errPayload, arg, err)
	}
	return arg, nil
}

// checkType finds what JSON cannot hold in a type, so that a program finds out
// when it starts.
func checkType(kind, what string, t reflect.Type, seen map[reflect.Type]bool) error {
	if seen[t] || encodesItself(t) {
		return nil
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return fmt.Errorf("durable: the %s of task %q has a %v, which JSON cannot hold", what, kind, t)
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return fmt.Errorf("durable: the %s of task %q has a %v, which JSON cannot be decoded into", what, kind, t)
		}
	case reflect.Map:
		switch k := t.Key(); {
		case k.Kind() == reflect.String, reflect.Int <= k.Kind() && k.Kind() <= reflect.Uintptr, encodesItself(k):
		default:
			return fmt.Errorf("durable: the %s of task %q has a %v, whose keys JSON cannot hold", what, kind, t)
		}
		return checkType(kind, what, t.Elem(), seen)
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return checkType(kind, what, t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if (!f.IsExported() && !f.Anonymous) || f.Tag.Get("json") == "-" {
				continue
			}
			if err := checkType(kind, what, f.Type, seen); err != nil {
				return err
			}
		}
	}
	return nil
}

// encodesItself reports whether a type says itself how it is encoded and decoded.
func encodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return (t.Implements(reflect.TypeFor[json.Marshaler]()) || t.Implements(reflect.TypeFor[encoding.TextMarshaler]())) &&
		(p.Implements(reflect.TypeFor[json.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()))
}
