package users_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/wake-go/wake/durable/sqlite"
	"github.com/wake-go/wake/examples/signup/internal/users"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a new database the way the application does.
func open(t *testing.T) (*users.Store, *sql.DB) {
	t.Helper()
	file, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "signup.db"), Relaxed: true, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	store, err := users.New(t.Context(), file.DB())
	if err != nil {
		t.Fatal(err)
	}
	return store, file.DB()
}

// tryAdd adds a user in a transaction of its own.
func tryAdd(ctx context.Context, db *sql.DB, username string, picture []byte) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := users.AddTo(ctx, tx, username, picture); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func add(t *testing.T, db *sql.DB, username string, picture []byte) {
	t.Helper()
	if err := tryAdd(t.Context(), db, username, picture); err != nil {
		t.Fatal(err)
	}
}

func all(t *testing.T, store *users.Store) []users.User {
	t.Helper()
	list, err := store.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestEmptyListIsNotNil(t *testing.T) {
	t.Parallel()
	store, _ := open(t)
	if list := all(t, store); list == nil || len(list) != 0 {
		t.Errorf("All on an empty store = %#v, want an empty list", list)
	}
}

func TestNewestFirst(t *testing.T) {
	t.Parallel()
	store, db := open(t)
	for i := range 20 {
		add(t, db, fmt.Sprintf("user-%02d", i), nil)
	}
	for i, u := range all(t, store) {
		if want := fmt.Sprintf("user-%02d", 19-i); u.Username != want {
			t.Fatalf("user %d is %s, want %s", i, u.Username, want)
		}
	}
}

func TestTaken(t *testing.T) {
	t.Parallel()
	store, db := open(t)
	add(t, db, "Ada", []byte("first"))
	for _, name := range []string{"Ada", "ada", "ADA"} {
		if err := tryAdd(t.Context(), db, name, []byte("second")); !errors.Is(err, users.ErrTaken) {
			t.Errorf("Add(%q) = %v, want ErrTaken", name, err)
		}
	}
	picture, err := store.Upload(t.Context(), "Ada")
	if err != nil || string(picture) != "first" {
		t.Errorf("Upload = %q, %v; a refused registration must not touch the picture", picture, err)
	}
}

func TestOneOfManyWins(t *testing.T) {
	t.Parallel()
	_, db := open(t)
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		wg.Go(func() { errs[i] = tryAdd(t.Context(), db, "ada", nil) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, users.ErrTaken):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d registrations of one name won, want 1", won)
	}
}

func TestTasksMarkTheUser(t *testing.T) {
	t.Parallel()
	store, db := open(t)
	add(t, db, "ada", nil)
	add(t, db, "bob", nil)
	marks := map[string]func(context.Context, users.Execer, string) error{
		"logged": users.MarkLogged, "emailed": users.MarkEmailed, "crm": users.MarkCRM,
	}
	for name, mark := range marks {
		for range 2 { // a task may run twice
			if err := mark(t.Context(), db, "ada"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := mark(t.Context(), db, "nobody"); !errors.Is(err, users.ErrUnknown) {
			t.Errorf("%s of nobody = %v, want ErrUnknown", name, err)
		}
	}
	list := all(t, store)
	if bob := list[0]; bob.Logged || bob.Emailed || bob.CRM {
		t.Errorf("bob = %+v, want no marks", bob)
	}
	if ada := list[1]; !ada.Logged || !ada.Emailed || !ada.CRM {
		t.Errorf("ada = %+v, want all marks", ada)
	}
}

func TestThumbnailReplacesTheUpload(t *testing.T) {
	t.Parallel()
	store, db := open(t)
	upload := bytes.Repeat([]byte{1, 0, 255}, 1<<20)
	add(t, db, "ada", upload)
	if got, err := store.Upload(t.Context(), "ada"); err != nil || !bytes.Equal(got, upload) {
		t.Fatalf("Upload gave %d bytes, %v", len(got), err)
	}
	if _, err := store.Thumbnail(t.Context(), "ada"); !errors.Is(err, users.ErrNoPicture) {
		t.Errorf("Thumbnail before resizing: %v, want ErrNoPicture", err)
	}
	if u := all(t, store)[0]; u.Picture != nil {
		t.Errorf("picture = %q before there is one, want null", *u.Picture)
	}
	if err := store.SetPicture(t.Context(), "ada", []byte("small")); err != nil {
		t.Fatal(err)
	}
	if got, err := store.Thumbnail(t.Context(), "ADA"); err != nil || string(got) != "small" {
		t.Errorf("Thumbnail = %q, %v", got, err)
	}
	if _, err := store.Upload(t.Context(), "ada"); !errors.Is(err, users.ErrNoPicture) {
		t.Errorf("Upload after resizing: %v, want ErrNoPicture", err)
	}
	if u := all(t, store)[0]; u.Picture == nil || *u.Picture != "/pictures/ada" {
		t.Errorf("picture = %v, want /pictures/ada", u.Picture)
	}
	if err := store.SetPicture(t.Context(), "nobody", []byte("small")); !errors.Is(err, users.ErrNoPicture) {
		t.Errorf("SetPicture of nobody: %v, want ErrNoPicture", err)
	}
}

func TestGet(t *testing.T) {
	t.Parallel()
	store, db := open(t)
	add(t, db, "Ada", nil)
	if err := users.MarkEmailed(t.Context(), db, "Ada"); err != nil {
		t.Fatal(err)
	}
	if u, err := store.Get(t.Context(), "ada"); err != nil || u.Username != "Ada" || !u.Emailed || u.CRM || u.Picture != nil {
		t.Errorf("Get = %+v, %v", u, err)
	}
	if _, err := store.Get(t.Context(), "nobody"); !errors.Is(err, users.ErrUnknown) {
		t.Errorf("Get of nobody = %v, want ErrUnknown", err)
	}
}

func TestAddToIsPartOfTheTransaction(t *testing.T) {
	t.Parallel()
	store, db := open(t)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := users.AddTo(t.Context(), tx, "ada", []byte("picture")); err != nil {
		t.Error(err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if list := all(t, store); len(list) != 0 {
		t.Errorf("after the rollback: %v", list)
	}
}

func TestTablesAreCreatedOnce(t *testing.T) {
	t.Parallel()
	_, db := open(t)
	add(t, db, "ada", nil)
	again, err := users.New(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if list := all(t, again); len(list) != 1 {
		t.Errorf("%d users, want 1", len(list))
	}
}
