package wake_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/background"
)

type State struct {
	DB   *DB
	Mail *Mailer
}

func life(ctx context.Context, yield func(*State) error) error {
	db, err := openDB(ctx) // start-up: before the first request
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	defer db.Close()                                // shutdown: after the last request and the last task
	return yield(&State{DB: db, Mail: NewMailer()}) // the application lives here
}

var (
	LogRegistration  = wake.Define("log_registration", logRegistration)
	SendWelcomeEmail = wake.Define("send_welcome_email", sendWelcomeEmail, wake.MaxAttempts(5))
)

func logRegistration(ctx context.Context, s *State, username string) error {
	return s.DB.Log(ctx, "registered "+username)
}

func sendWelcomeEmail(ctx context.Context, s *State, username string) error {
	return s.Mail.Send(ctx, username+"@example.test", "Welcome!")
}

type RegisterInput struct {
	Username string `path:"username" minLength:"2" maxLength:"32"`
}

type Message struct {
	Message string `json:"message"`
}

func register(ctx context.Context, in *RegisterInput, c wake.Call[*State]) (Message, error) {
	c.Tasks.Add(LogRegistration.With(in.Username))  // after the response, in memory
	c.Queue.Add(SendWelcomeEmail.With(in.Username)) // on disk before the response, run at least once
	return Message{"User registered. Check your email soon!"}, nil
}

func newSignup() *wake.App[*State] {
	app := wake.New("Signup", "1.0", life, wake.Queue("sqlite:signup.db"))
	wake.Post(app, "/register/{username}", register) // state, input and output types are inferred
	app.Tasks(LogRegistration, SendWelcomeEmail)     // tasks this program can run
	return app
}

// The program of the README. Its main passes the application to [wake.Main];
// here it runs until its one request has been answered and the queue is empty.
func Example() {
	dir, err := os.MkdirTemp("", "signup")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error)
	app := newSignup()
	queue := wake.Queue("sqlite:" + filepath.Join(dir, "signup.db"))
	logged := make(chan struct{}, 1)
	after := wake.OnTask(func(e background.Event) {
		if _, ok := e.(background.TaskFinished); ok {
			logged <- struct{}{}
		}
	})
	go func() { ended <- app.Run(ctx, wake.Listener(listener), queue, after, quiet) }()

	res, err := http.Post("http://"+listener.Addr().String()+"/register/Ada", "", http.NoBody)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	fmt.Println(res.StatusCode, string(answer), err)
	<-logged
	if err := app.RunQueue(ctx); err != nil { // waits for the workers
		fmt.Println(err)
	}

	stop()
	fmt.Println("stopped:", <-ended)
	// Unordered output:
	// database opened
	// 200 {"message":"User registered. Check your email soon!"}
	//  <nil>
	// log: registered Ada
	// mail to Ada@example.test: Welcome!
	// database closed
	// stopped: <nil>
}

// DB and Mailer stand for what a program has.
type DB struct{}

func openDB(context.Context) (*DB, error) {
	fmt.Println("database opened")
	return &DB{}, nil
}

func (*DB) Log(_ context.Context, line string) error {
	fmt.Println("log:", line)
	return nil
}

func (*DB) Close() error {
	fmt.Println("database closed")
	return nil
}

type Mailer struct{}

func NewMailer() *Mailer { return &Mailer{} }

func (*Mailer) Send(_ context.Context, to, text string) error {
	fmt.Printf("mail to %s: %s\n", to, text)
	return nil
}
