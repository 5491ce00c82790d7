package thumbnail

import "errors"

// The reasons for which a picture is refused.
var (
	ErrTooLarge   = errors.New("picture has too many bytes")
	ErrType       = errors.New("picture is neither a PNG nor a JPEG")
	ErrDimensions = errors.New("picture has too many pixels")
	ErrDamaged    = errors.New("picture is damaged")
)

// Rejection is a refused picture. Its text is meant for the person who sent it; what a decoder said about the bytes is
// only in the chain of errors.
type Rejection struct {
	Reason  error // one of the Err variables
	Message string
	Cause   error // the decoder's error, or nil
}

func (r *Rejection) Error() string { return r.Message }

// Unwrap lets errors.Is find the reason and the cause.
func (r *Rejection) Unwrap() []error {
	if r.Cause == nil {
		return []error{r.Reason}
	}
	return []error{r.Reason, r.Cause}
}

func damaged(cause error) error {
	return &Rejection{ErrDamaged, "The picture is damaged or incomplete: please choose another, or save it anew.", cause}
}
