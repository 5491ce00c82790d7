package sqlite_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/sqlite"
)

// SendWelcome is declared once, where those who add it and those who run it
// can see it.
var SendWelcome = durable.Declare[string]("send_welcome", durable.MaxAttempts(5))

// A service on any router needs these two packages and no other part of Wake:
// the user's row and the task are one transaction, and the task runs at least
// once, whatever happens to the process.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, stop := context.WithCancel(context.Background())

	store, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(dir, "signup.db")})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	if _, err := store.DB().ExecContext(ctx, `CREATE TABLE IF NOT EXISTS users (name TEXT PRIMARY KEY)`); err != nil {
		log.Fatal(err)
	}
	queue := durable.NewQueue(store)
	defer queue.Close(context.Background())

	sent := make(chan bool)
	engine := durable.NewEngine(queue, SendWelcome.Run(func(ctx context.Context, name string) error {
		fmt.Println("Welcome,", name)
		close(sent)
		return nil
	}))
	ended := make(chan error)
	go func() { ended <- engine.Run(ctx) }()

	mux := http.NewServeMux() // or chi, gin, echo
	mux.HandleFunc("POST /register/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		err := queue.InTx(r.Context(), func(ctx context.Context, tx *durable.SQLTx) error {
			tx.Add(SendWelcome.With(name).Key(name))
			_, err := tx.ExecContext(ctx, `INSERT INTO users VALUES (?)`, name)
			return err
		})
		if err != nil {
			http.Error(w, "try another name", http.StatusConflict)
			return
		}
		w.WriteHeader(http.StatusCreated)
	})
	for range 2 {
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/register/Ada", nil))
		fmt.Println(answer.Code)
		if answer.Code == http.StatusCreated {
			<-sent
		}
	}

	stop()
	if err := <-ended; err != nil {
		log.Fatal(err)
	}
	// Unordered output:
	// 201
	// Welcome, Ada
	// 409
}
