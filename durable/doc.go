/*
Package durable has tasks that survive: a task is on disk when adding it
returns, and it runs at least once, in this process or another, today or after
the next restart.

# A first program

Declare a kind of task where both those who add it and those who run it see it.
Its argument is stored as JSON:

	type Mail struct{ To, Text string }

	var SendMail = durable.Declare[Mail]("send_mail", durable.MaxAttempts(5))

Open a store, make a [Queue] of it, and an [Engine] with a handler for each
kind:

	store, err := sqlite.Open(ctx, sqlite.Config{Path: "tasks.db"})
	q := durable.NewQueue(store)
	engine := durable.NewEngine(q, SendMail.Run(func(ctx context.Context, m Mail) error {
		return smtp.Send(ctx, m)
	}))
	go engine.Run(ctx)

And add tasks, from wherever the queue is known:

	id, err := q.Add(ctx, SendMail.With(Mail{To: "a@example.test"}).In(time.Hour))

When Add returns without an error, the task is committed. When it is to exist
only together with rows of your own, add it in your transaction: with
[Queue.AddTx], or with [Queue.InTx], which shares its commit with others.

# What is promised

A task whose addition was acknowledged runs until its handler has returned
without an error, its attempts are used up, or somebody cancels it. It can run
more than once: when its process dies after the work and before the outcome is
committed, or is not heard of for longer than its lease. So let handlers do
what may be done twice: give the mail's idempotency key to the mail service, or
complete the task with [FinishTx] in the transaction that has its effects.

A process holds a lease on what it runs. If that ends, others take over, and
the first one's late outcome, progress and result are refused. A task that has
killed [MaxCrashes] processes is dead. Nothing is promised about the order of
tasks beyond that those with a greater priority are begun first and, among
equals, earlier ones.

# Errors of handlers

An error is tried again after a while, see [Policy]; [Cancel] says that there
is no sense in it, [Snooze] that it is too early. A panic is an error. The
context of a task ends with a cause that tells why: [ErrTimeout],
[ErrCancelled], [ErrLeaseLost], [ErrDraining].

# Stopping

[Engine.Drain] lets running tasks end, then [Queue.Close] commits what is left,
then the store can be closed, in this order. [Engine.Run] drains when its
context ends.
*/
package durable
