package durable

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"
)

// An ID names a task. It is a UUID of version 7: ids of one process sort by the
// time they were made at, to a quarter of a microsecond, and their other 62
// bits are random, so that nobody can guess one.
type ID [16]byte

// NewID makes an id. It may be called by several goroutines.
func NewID() ID {
	now := time.Now()
	id := IDAt(now)
	rand.Read(id[8:]) // never fails, see its documentation
	fraction := now.UnixNano() % int64(time.Millisecond) * 4096 / int64(time.Millisecond)
	binary.BigEndian.PutUint16(id[6:], uint16(fraction)|0x7000)
	id[8] = id[8]&0x3f | 0x80
	return id
}

// IDAt returns the smallest id of a moment: ids made earlier sort before it.
func IDAt(t time.Time) ID {
	var id ID
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(max(0, t.UnixMilli())))
	copy(id[:6], ms[2:])
	return id
}

// ParseID reads what [ID.String] writes, with or without hyphens.
func ParseID(s string) (ID, error) {
	var id ID
	bad := func() (ID, error) {
		return ID{}, fmt.Errorf("durable: %q is not a task's id; it has the form 0198c0de-0000-7000-8000-000000000000", shortened(s, 64))
	}
	hexed := make([]byte, 0, 32)
	for i := range len(s) {
		if s[i] == '-' && len(s) == 36 && (i == 8 || i == 13 || i == 18 || i == 23) {
			continue
		}
		hexed = append(hexed, s[i])
		if len(hexed) > 32 {
			return bad()
		}
	}
	if len(hexed) != 32 {
		return bad()
	}
	if _, err := hex.Decode(id[:], hexed); err != nil {
		return bad()
	}
	return id, nil
}

// String returns the id in the usual form of a UUID.
func (id ID) String() string {
	var b [36]byte
	hex.Encode(b[:8], id[:4])
	b[8] = '-'
	hex.Encode(b[9:13], id[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], id[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], id[8:10])
	b[23] = '-'
	hex.Encode(b[24:], id[10:])
	return string(b[:])
}

// IsZero reports whether the id is that of no task.
func (id ID) IsZero() bool { return id == ID{} }

// Time returns when the id was made, to the millisecond.
func (id ID) Time() time.Time {
	var ms [8]byte
	copy(ms[2:], id[:6])
	return time.UnixMilli(int64(binary.BigEndian.Uint64(ms[:])))
}

// MarshalText makes an id a string in JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads an id.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err == nil {
		*id = parsed
	}
	return err
}

// shortened bounds a value for an error or a log.
func shortened(s string, most int) string {
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
