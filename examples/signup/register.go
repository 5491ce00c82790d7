package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/wake-go/wake"
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

	// The tasks come before the row: they exist only if this function succeeds, but a row would stay. Where there is no
	// room for them, ctx ends and the row is not written.
	c.Tasks.Add(LogRegistration.With(in.Username), SendWelcomeEmail.With(in.Username))
	if picture != nil {
		c.Tasks.Add(ResizePicture.With(in.Username))
	}
	c.Tasks.Add(UpdateCRM.With(in.Username))

	err = c.State.Users.Add(ctx, in.Username, picture)
	if errors.Is(err, users.ErrTaken) {
		return Message{}, wake.Errorf(http.StatusConflict, "The username %s is taken: please choose another.", in.Username)
	}
	if err != nil {
		return Message{}, err
	}
	return Message{"User registered. Check your email soon!"}, nil
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
