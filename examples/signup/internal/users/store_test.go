package users_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/wake-go/wake/examples/signup/internal/users"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) (*users.Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "signup.db")
	store, err := users.Open(t.Context(), "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store, path
}

func add(t *testing.T, store *users.Store, username string, picture []byte) {
	t.Helper()
	if err := store.Add(t.Context(), username, picture); err != nil {
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
	store, _ := open(t)
	for i := range 20 {
		add(t, store, fmt.Sprintf("user-%02d", i), nil)
	}
	for i, u := range all(t, store) {
		if want := fmt.Sprintf("user-%02d", 19-i); u.Username != want {
			t.Fatalf("user %d is %s, want %s", i, u.Username, want)
		}
	}
}

func TestTaken(t *testing.T) {
	t.Parallel()
	store, _ := open(t)
	add(t, store, "Ada", []byte("first"))
	for _, name := range []string{"Ada", "ada", "ADA"} {
		if err := store.Add(t.Context(), name, []byte("second")); !errors.Is(err, users.ErrTaken) {
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
	store, _ := open(t)
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		wg.Go(func() { errs[i] = store.Add(t.Context(), "ada", nil) })
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
	store, _ := open(t)
	add(t, store, "ada", nil)
	add(t, store, "bob", nil)
	marks := map[string]func(context.Context, string) error{
		"logged": store.MarkLogged, "emailed": store.MarkEmailed, "crm": store.MarkCRM,
	}
	for name, mark := range marks {
		for range 2 { // a task may run twice
			if err := mark(t.Context(), "ada"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := mark(t.Context(), "nobody"); !errors.Is(err, users.ErrUnknown) {
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
	store, _ := open(t)
	upload := bytes.Repeat([]byte{1, 0, 255}, 1<<20)
	add(t, store, "ada", upload)
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

func TestAddToIsPartOfTheTransaction(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "shared.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	store, err := users.New(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
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
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	if err := db.PingContext(t.Context()); err != nil {
		t.Errorf("Close closed a database that is not its own: %v", err)
	}
}

func TestUsersSurviveReopening(t *testing.T) {
	t.Parallel()
	url := "sqlite:" + filepath.Join(t.TempDir(), "a name % with #odd? characters.db")
	if _, err := users.Open(t.Context(), url); err == nil {
		t.Fatal("a path with a question mark was accepted")
	}
	url = "sqlite:" + filepath.Join(t.TempDir(), "a name % with odd characters.db")
	for range 2 {
		store, err := users.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		err = store.Add(t.Context(), "ada", nil)
		if err != nil && !errors.Is(err, users.ErrTaken) {
			t.Error(err)
		}
		if list := all(t, store); len(list) != 1 {
			t.Errorf("%d users, want 1", len(list))
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFilesArePrivate(t *testing.T) {
	t.Parallel()
	store, path := open(t)
	add(t, store, "ada", nil)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Error(err)
			continue
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("%s has mode %o, want 600", filepath.Base(path)+suffix, mode)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"", "signup.db", "postgres://localhost/signup", "mysql:signup", "sqlite:", "sqlite::memory:",
		"sqlite://signup.db", "sqlite:signup.db?mode=memory",
	} {
		store, err := users.Open(t.Context(), url)
		if err == nil {
			t.Errorf("Open(%q) succeeded", url)
			store.Close()
			continue
		}
		if !strings.Contains(err.Error(), fmt.Sprintf("%q", url)) || !strings.Contains(err.Error(), "write sqlite:") {
			t.Errorf("Open(%q): %v; want the value and what to write instead", url, err)
		}
	}
	_, err := users.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "missing", "signup.db"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open in a missing directory: %v", err)
	}
}
