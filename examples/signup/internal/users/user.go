package users

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// PicturePath is where the service shows thumbnails: PicturePath + username.
const PicturePath = "/pictures/"

// User is a person who signed up, as GET /data shows them. The booleans are set by the tasks that run after the
// registration was answered.
type User struct {
	Username     string    `json:"username"`
	RegisteredAt time.Time `json:"registered_at"`
	Logged       bool      `json:"logged"`
	Emailed      bool      `json:"emailed"`
	CRM          bool      `json:"crm"`
	Picture      *string   `json:"picture" doc:"URL of the thumbnail, null until there is one"`
}

const selectUsers = `
	SELECT u.username, u.registered_at, u.logged, u.emailed, u.crm, p.thumbnail IS NOT NULL
	FROM users u LEFT JOIN pictures p ON p.username = u.username `

// Get returns a user, or [ErrUnknown].
func (s *Store) Get(ctx context.Context, username string) (User, error) {
	u, err := scan(s.db.QueryRowContext(ctx, selectUsers+`WHERE u.username = ?`, username))
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrUnknown
	}
	if err != nil {
		return User{}, fmt.Errorf("get user %q: %w", username, err)
	}
	return u, nil
}

// All returns everybody, newest first.
func (s *Store) All(ctx context.Context) ([]User, error) {
	rows, err := s.db.QueryContext(ctx, selectUsers+`ORDER BY u.registered_at DESC, u.rowid DESC`)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	defer rows.Close()

	all := []User{} // an empty list in JSON, not null
	for rows.Next() {
		u, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("list users: %w", err)
		}
		all = append(all, u)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	return all, nil
}

// scan reads a row of selectUsers.
func scan(row interface{ Scan(...any) error }) (User, error) {
	var (
		u          User
		registered int64
		thumbnail  bool
	)
	if err := row.Scan(&u.Username, &registered, &u.Logged, &u.Emailed, &u.CRM, &thumbnail); err != nil {
		return User{}, err
	}
	u.RegisteredAt = time.UnixMicro(registered).UTC()
	if thumbnail {
		url := PicturePath + u.Username
		u.Picture = &url
	}
	return u, nil
}
