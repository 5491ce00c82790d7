package postgres_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/postgres"
)

// A row of the application and the task that follows from it are committed
// together, in one database.
func Example() {
	ctx := context.Background()
	store, err := postgres.Open(ctx, postgres.Config{URL: "postgres://signup@db.example.test/signup"})
	if err != nil {
		log.Print(err)
		return
	}
	defer store.Close()
	queue := durable.NewQueue(store)
	defer queue.Close(ctx)

	welcome := durable.Declare[string]("send_welcome_email")
	register := func(db *sql.DB, name string) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() // does nothing after the commit
		if _, err := tx.ExecContext(ctx, `INSERT INTO users (name) VALUES ($1)`, name); err != nil {
			return err
		}
		if _, err := queue.AddTx(ctx, tx, welcome.With(name)); err != nil {
			return err
		}
		return tx.Commit()
	}
	fmt.Println(register(store.DB(), "ada"))
}
