// Package postgres keeps tasks in a PostgreSQL database (14 or later): the
// same queue as that of package sqlite, for processes on many machines.
//
//	store, err := postgres.Open(ctx, postgres.Config{URL: "postgres://signup@db.example.test/signup"})
//	queue := durable.NewQueue(store)
//
// What is acknowledged is as durable as the server's commits are: leave its
// synchronous_commit on. The server's time decides about leases and due tasks,
// never a worker's clock. The store's tables are in a schema of their own, so
// that the application's can be in the same database, and a row and the tasks
// that follow from it are committed together.
//
// The role of a program needs USAGE of the schema and SELECT, INSERT, UPDATE
// and DELETE on its tables. The first time, and with a newer version, it is
// opened by a role that may create them.
//
// A store works through a pooler such as PgBouncer in transaction mode. It
// notices that it does, and then polls instead of listening.
package postgres
