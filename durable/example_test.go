package durable_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/memory"
)

type Mail struct{ To, Text string }

func Example() {
	sendMail := durable.Declare[Mail]("send_mail", durable.MaxAttempts(5))

	q := durable.NewQueue(memory.New(memory.Config{})) // sqlite.Open for one that survives
	sent := make(chan string)
	engine := durable.NewEngine(q, sendMail.Run(func(ctx context.Context, m Mail) error {
		sent <- m.To
		return nil
	}))
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error)
	go func() { stopped <- engine.Run(ctx) }()

	if _, err := q.Add(ctx, sendMail.With(Mail{To: "a@example.test"})); err != nil {
		fmt.Println(err)
	}
	fmt.Println("mail to", <-sent)

	stop()
	fmt.Println(<-stopped, q.Close(context.Background()))
	// Output:
	// mail to a@example.test
	// <nil> <nil>
}

func ExampleDeclareResult() {
	double := durable.DeclareResult[int, int]("double")

	ctx := context.Background()
	q := durable.NewQueue(memory.New(memory.Config{}))
	engine := durable.NewEngine(q, double.Run(func(_ context.Context, n int) (int, error) { return 2 * n, nil }))
	if err := engine.Start(ctx); err != nil {
		fmt.Println(err)
	}
	id, err := q.Add(ctx, double.With(21))
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println(double.Wait(ctx, q, id))
	fmt.Println(engine.Drain(ctx), q.Close(ctx))
	// Output:
	// 42 <nil>
	// <nil> <nil>
}

func ExampleQueue_Watch() {
	report := durable.Declare[string]("report")

	ctx := context.Background()
	q := durable.NewQueue(memory.New(memory.Config{}))
	seen := make(chan struct{})
	engine := durable.NewEngine(q, report.Run(func(ctx context.Context, _ string) error {
		durable.Progress(ctx, 1, 2, "half")
		<-seen
		return nil
	}))
	if err := engine.Start(ctx); err != nil {
		fmt.Println(err)
	}
	id, err := q.Add(ctx, report.With("2025"))
	if err != nil {
		fmt.Println(err)
	}
	for task, err := range q.Watch(ctx, id) {
		if err != nil {
			fmt.Println(err)
			break
		}
		if task.Progress != nil {
			fmt.Println(task.State, task.Progress.Done, "of", task.Progress.Total)
			if task.State == durable.Running {
				close(seen)
			}
		}
	}
	fmt.Println(engine.Drain(ctx), q.Close(ctx))
	// Output:
	// running 1 of 2
	// succeeded 1 of 2
	// <nil> <nil>
}

func ExampleSnooze() {
	errClosed := errors.New("the shop is closed for good")
	_ = func(ctx context.Context, order int) error {
		switch hour := time.Now().Hour(); {
		case order == 0:
			return durable.Cancel(errClosed) // no other attempt
		case hour < 9:
			return durable.Snooze(time.Duration(9-hour) * time.Hour) // costs no attempt
		}
		return nil
	}
}
