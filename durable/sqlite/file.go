package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/wake-go/wake/durable"
)

// A file is the one that the store has opened, whatever is there by its name
// later.
type file struct {
	path string
	info os.FileInfo
}

func fileAt(path string) (*file, error) {
	info, err := os.Stat(path)
	return &file{path, info}, err
}

// inPlace returns an error if the file has been moved, deleted or replaced:
// what is written to it then, nobody would find.
func (f *file) inPlace() error {
	info, err := os.Stat(f.path)
	if err == nil && !os.SameFile(f.info, info) {
		err = errors.New("there is another file in its place")
	}
	if err != nil {
		return fmt.Errorf("durable: sqlite: %w: the file was moved, deleted or replaced while it was open; put it back, or start the program again: %w", durable.ErrUnavailable, err)
	}
	return nil
}

// createPrivate creates the file for its owner alone, where there is none.
// SQLite gives its other files the same permissions.
func createPrivate(path string) error {
	if dir := filepath.Dir(path); dir != "." {
		if info, err := os.Stat(dir); err != nil {
			return fmt.Errorf("its directory: %w", err)
		} else if !info.IsDir() {
			return fmt.Errorf("%s is not a directory", dir)
		}
	}
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return fmt.Errorf("it is a directory; name a file in it")
	case err == nil:
		return nil
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// realPath returns the one name of a file that all processes see, whatever
// link each of them was given: the files beside it say who lives.
func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}
