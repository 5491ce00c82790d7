package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/examples/signup/internal/thumbnail"
	"github.com/wake-go/wake/examples/signup/internal/users"
)

// maxUpload leaves room around a picture for the form it comes in.
const maxUpload = thumbnail.MaxBytes + 1<<20

// RegisterInput is a username and, in a form that may be left out, a picture.
type RegisterInput struct {
	Username string `path:"username" pattern:"^[A-Za-z0-9_-]{2,32}$" patternDescription:"2 to 32 letters, digits, - and _" example:"Ada"`
	RawBody  wake.Form[RegisterForm]
}

// RegisterForm is the form. The picture is judged by its content: what a client calls it does not matter.
type RegisterForm struct {
	Picture wake.FormFile `form:"picture" required:"false" contentType:"image/png,image/jpeg,application/octet-stream" doc:"Profile picture, PNG or JPEG, at most 5 MiB"`
}

// Message is the answer to a registration.
type Message struct {
	Message string `json:"message"`
}

func register(ctx context.Context, in *RegisterInput, c wake.Call[*State]) (Message, error) {
	picture, err := uploaded(ctx, in)
	if err != nil {
		return Message{}, err
	}

	c.Tasks.Add(LogRegistration.With(in.Username)) // in memory, after the answer

	tasks := []wake.Job[*State]{SendWelcomeEmail.With(in.Username), UpdateCRM.With(in.Username)} // on disk, before it
	if picture != nil {
		tasks = append(tasks, ResizePicture.With(in.Username))
	}
	ids, err := store(ctx, c.Queue, in.Username, picture, tasks)
	switch {
	case errors.Is(err, users.ErrTaken):
		return Message{}, wake.Errorf(http.StatusConflict, "The username %s is taken: please choose another.", in.Username)
	case err != nil:
		return Message{}, err
	}
	for i, id := range ids {
		linkTask(c.Response, tasks[i].Name(), id)
	}
	return Message{"User registered. Check your email soon!"}, nil
}

// store stores a user and the tasks that follow: all of it, or nothing.
func store(ctx context.Context, queue *wake.Outbox, username string, picture []byte, tasks []wake.Job[*State]) (ids []durable.ID, err error) {
	if picture != nil {
		return storeWithPicture(ctx, queue, username, picture, tasks)
	}
	err = queue.InTx(ctx, func(ctx context.Context, tx *durable.SQLTx) error {
		ids = ids[:0] // it may run twice
		for _, task := range tasks {
			ids = append(ids, tx.Add(task))
		}
		return users.AddTo(ctx, tx, username, picture)
	})
	return ids, err
}

// storeWithPicture has a transaction of its own. Writing megabytes takes tens of milliseconds: in the transaction that
// InTx shares with others, everybody would wait for all the pictures in it.
func storeWithPicture(ctx context.Context, queue *wake.Outbox, username string, picture []byte, tasks []wake.Job[*State]) (ids []durable.ID, err error) {
	tx, err := wake.DB(ctx).BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("store user %q: %w", username, err)
	}
	defer tx.Rollback() // does nothing after the commit
	if err := users.AddTo(ctx, tx, username, picture); err != nil {
		return nil, err
	}
	for _, task := range tasks {
		id, err := queue.AddTx(ctx, tx, task)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	if err := tx.Commit(); err != nil {
		return nil, fmt.Errorf("store user %q: %w", username, err)
	}
	return ids, nil
}

// uploaded returns the picture, or nil if there is none. It decodes the whole picture, on the lane for computing, so
// that nobody is registered with one that turns out to be damaged later.
func uploaded(ctx context.Context, in *RegisterInput) ([]byte, error) {
	if err := onlyPicture(in); err != nil {
		return nil, err
	}
	file := in.RawBody.Data().Picture
	if !file.IsSet {
		return nil, nil
	}
	defer file.Close() // read only: nothing can be lost
	picture, err := thumbnail.Read(file)
	if err != nil {
		return nil, refused(err)
	}
	return wake.Offload(ctx, func(context.Context) ([]byte, error) {
		return picture, refused(thumbnail.Check(picture))
	})
}

// onlyPicture refuses a form with other fields: whoever sent them expects something of them.
func onlyPicture(in *RegisterInput) error {
	form := in.RawBody.Form
	for name := range form.File {
		if name != "picture" {
			return wake.Errorf(http.StatusUnprocessableEntity, "The form has a file %.40q: send only the file picture.", name)
		}
	}
	for name := range form.Value {
		return wake.Errorf(http.StatusUnprocessableEntity, "The form has a field %.40q: send only the file picture.", name)
	}
	return nil
}

// refused makes of a refused picture a problem that its sender may see.
func refused(err error) error {
	var rejection *thumbnail.Rejection
	if !errors.As(err, &rejection) {
		return err
	}
	status := http.StatusUnprocessableEntity
	switch rejection.Reason {
	case thumbnail.ErrTooLarge:
		status = http.StatusRequestEntityTooLarge
	case thumbnail.ErrType:
		status = http.StatusUnsupportedMediaType
	}
	return &wake.Error{Status: status, Detail: rejection.Message, Err: fmt.Errorf("picture refused: %w", err)}
}
