package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/sqlite"
)

// smallDisk mounts a file system of a few megabytes.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// On a full disk nothing is acknowledged that is not stored, what runs is
// finished with the room of the ballast, and all goes on when there is room.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, "size=16m")
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(dir, "test.db"), Ballast: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	boot := durable.Boot(durable.NewID())
	if _, err := s.Register(t.Context(), durable.Node{Boot: boot, Lease: time.Minute}); err != nil {
		t.Fatal(err)
	}
	var running []durable.Finish
	var acknowledged []durable.ID
	payload := []byte(`"` + strings.Repeat("x", 20<<10) + `"`)
	for err == nil {
		in := newInsert("k")
		in.Payload = payload
		res := commit(t, s, &durable.Batch{Boot: boot, Inserts: []durable.Insert{in}, Claims: []durable.Claim{{Queue: "default", Kinds: []string{"k"}, Limit: 1}}})
		if err = res.Inserted[0].Err; err == nil {
			acknowledged = append(acknowledged, in.ID)
			running = append(running, durable.Finish{Ref: res.Claimed[0].Ref, Move: durable.MoveSucceed})
		}
	}
	if !errors.Is(err, durable.ErrFull) || !errors.Is(err, durable.ErrUnavailable) {
		t.Fatalf("after %d tasks: %v", len(acknowledged), err)
	}
	if _, err := add(t.Context(), s); !errors.Is(err, durable.ErrFull) {
		t.Errorf("add to a full disk: %v", err)
	}
	late := newInsert("k") // beside outcomes: those count, and it does not
	res := commit(t, s, &durable.Batch{Boot: boot, Finishes: running[:10], Inserts: []durable.Insert{late}})
	if err := res.Inserted[0].Err; !errors.Is(err, durable.ErrFull) {
		t.Errorf("added to a full disk beside outcomes: %v", err)
	}
	if _, err := s.Get(t.Context(), late.ID); !errors.Is(err, durable.ErrNotFound) {
		t.Errorf("refused: %v", err)
	}
	for i, ok := range res.Finished {
		if !ok {
			t.Errorf("outcome %d does not count", i)
		}
	}
	for _, id := range acknowledged {
		if _, err := s.Get(t.Context(), id); err != nil {
			t.Errorf("acknowledged: %v", err)
		}
	}
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; {
		_, err := add(t.Context(), s)
		if err == nil {
			break
		}
		if !errors.Is(err, durable.ErrFull) || time.Now().After(deadline) {
			t.Fatalf("add when there is room again: %v", err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "test.db-wake-ballast")); err != nil || info.Size() != 2<<20 {
		t.Errorf("the ballast is not back: %v", err)
	}
}

// A file that cannot be written to is refused when it is opened, or an error
// to who adds, until it can be written to.
func TestReadOnlyFile(t *testing.T) {
	dir := smallDisk(t, "size=16m")
	path := filepath.Join(dir, "test.db")
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := add(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, "size=16m"); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), sqlite.Config{Path: path}); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("open: %v", err)
	}
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT, "size=16m"); err != nil {
		t.Fatal(err)
	}
	s, err = sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A beat finds room on a disk that others have filled: a lease must not end
// for the lack of a page.
func TestBeatOnADiskFilledByOthers(t *testing.T) {
	dir := smallDisk(t, "size=16m")
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(dir, "test.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	boot := durable.Boot(durable.NewID())
	if _, err := s.Register(t.Context(), durable.Node{Boot: boot, Lease: time.Minute}); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "others"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	for range 500 {
		if _, err := s.Beat(t.Context(), boot); err != nil {
			t.Fatal(err)
		}
	}
}
