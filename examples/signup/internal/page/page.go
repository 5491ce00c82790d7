// Package page is the sign-up page: static files and the headers that keep them harmless.
//
// The page talks to the service under its own origin and loads nothing from anywhere else. Its scripts and styles are
// files of their own, so the Content-Security-Policy can refuse everything inline.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"time"
)

//go:embed assets
var assets embed.FS

// AssetsPath is where [Handler] wants to be mounted beside "/", with everything below.
const AssetsPath = "/assets/"

const contentSecurityPolicy = "default-src 'self'; img-src 'self' blob:; object-src 'none'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// Handler serves the page at "/" and its files below [AssetsPath]; everything else is not found.
func Handler() http.Handler {
	entries, err := fs.ReadDir(assets, "assets")
	if err != nil {
		panic(fmt.Sprintf("read the page's embedded files: %v", err)) // they are in the program or it does not compile
	}
	mux := http.NewServeMux()
	for _, entry := range entries {
		content, err := assets.ReadFile("assets/" + entry.Name())
		if err != nil {
			panic(fmt.Sprintf("read the page's embedded files: %v", err))
		}
		pattern := "GET " + AssetsPath + entry.Name()
		if entry.Name() == "index.html" {
			pattern = "GET /{$}"
		}
		mux.Handle(pattern, newFile(entry.Name(), content))
	}
	return mux
}

// file is one file with the headers that do not change.
type file struct {
	content     []byte
	contentType string
	etag        string
}

func newFile(name string, content []byte) *file {
	sum := sha256.Sum256(content)
	return &file{
		content:     content,
		contentType: contentType(name),
		etag:        `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`,
	}
}

// contentType does not ask the operating system, which may know other types or none.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return "application/octet-stream"
}

func (f *file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Type", f.contentType)
	// The name of a file stays when its content changes, so a browser has to ask; the answer is usually 304.
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", f.etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
}
