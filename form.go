package wake

import "github.com/danielgtaylor/huma/v2"

// A Form is a multipart form whose fields are those of the struct T, named by
// the tag form. It is the type of an input's field RawBody:
//
//	type UploadInput struct {
//		RawBody wake.Form[struct {
//			Title   string        `form:"title" maxLength:"100"`
//			Picture wake.FormFile `form:"picture" contentType:"image/png,image/jpeg" required:"false"`
//		}]
//	}
//
// Its method Data returns the T. A form whose fields may all be left out may be
// left out itself. Files are gone when the operation has returned: a task gets
// their contents, not the files. [BodyLimit] bounds the whole form.
type Form[T any] = huma.MultipartFormFiles[T]

// A FormFile is a file of a [Form]. IsSet tells whether there is one. What the
// client says of its type and name is not to be trusted.
type FormFile = huma.FormFile
