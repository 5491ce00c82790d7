package users

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Upload returns the picture as it was uploaded. It returns [ErrNoPicture] once the thumbnail has taken its place, so a
// resizing task that runs a second time sees that there is nothing left to do.
func (s *Store) Upload(ctx context.Context, username string) ([]byte, error) {
	return s.picture(ctx, username, `SELECT upload FROM pictures WHERE username = ? AND upload IS NOT NULL`)
}

// SetPicture stores the thumbnail in place of the upload.
func (s *Store) SetPicture(ctx context.Context, username string, thumbnail []byte) error {
	result, err := s.db.ExecContext(ctx,
		`UPDATE pictures SET thumbnail = ?, upload = NULL WHERE username = ?`, thumbnail, username)
	return oneRow(result, err, "store the thumbnail of user", username, ErrNoPicture)
}

// Thumbnail returns the thumbnail, a PNG or a JPEG, or [ErrNoPicture].
func (s *Store) Thumbnail(ctx context.Context, username string) ([]byte, error) {
	return s.picture(ctx, username, `SELECT thumbnail FROM pictures WHERE username = ? AND thumbnail IS NOT NULL`)
}

func (s *Store) picture(ctx context.Context, username, query string) ([]byte, error) {
	var picture []byte
	err := s.db.QueryRowContext(ctx, query, username).Scan(&picture)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("picture of user %q: %w", username, ErrNoPicture)
	}
	if err != nil {
		return nil, fmt.Errorf("picture of user %q: %w", username, err)
	}
	return picture, nil
}
