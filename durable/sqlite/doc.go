// Package sqlite keeps tasks in a SQLite file: no server to install, and the
// application's own tables in the same file, so that a row and the tasks that
// follow from it are committed together.
//
//	store, err := sqlite.Open(ctx, sqlite.Config{Path: "signup.db"})
//	queue := durable.NewQueue(store)
//
// What is acknowledged has been synced to the disk. All that a process writes
// on connections of this package, the application's own transactions included,
// takes turns; so use [Store.DB] for your tables and do not open the file
// otherwise. Several processes on one machine may have the file open; a file
// on a network file system is refused.
package sqlite
