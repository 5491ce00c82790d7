package page_test

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/wake-go/wake/examples/signup/internal/page"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(t *testing.T, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	page.Handler().ServeHTTP(w, r)
	return w
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	for path, contentType := range map[string]string{
		"/":                 "text/html; charset=utf-8",
		"/assets/app.js":    "text/javascript; charset=utf-8",
		"/assets/style.css": "text/css; charset=utf-8",
		"/assets/icon.svg":  "image/svg+xml",
	} {
		w := get(t, path)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != contentType {
			t.Errorf("%s: status %d, type %q", path, w.Code, w.Header().Get("Content-Type"))
		}
		policy := w.Header().Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'self'; img-src 'self' blob:;") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: policy %q", path, policy)
		}
		if w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: headers %v", path, w.Header())
		}
	}
}

func TestUnchangedFileIsNotSentAgain(t *testing.T) {
	t.Parallel()
	etag := get(t, "/").Header().Get("ETag")
	if w := get(t, "/", "If-None-Match", etag); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
		t.Errorf("status %d with %d bytes, want 304 with none", w.Code, w.Body.Len())
	}
}

func TestNothingElseIsFound(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/index.html", "/assets/", "/assets/index.html", "/assets/none.js", "/page.go", "/other"} {
		if w := get(t, path); w.Code != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", path, w.Code)
		}
	}
}

// The policy refuses these in the browser, where nobody may be looking.
func TestNothingInlineAndNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	html := get(t, "/").Body.String()
	for _, pattern := range []string{`(?i)\sstyle=`, `(?i)\son[a-z]+=`, `(?i)<style`, `(?i)<script[^>]*>[^<]`, `(?i)(src|href)="(https?:)?//`} {
		if found := regexp.MustCompile(pattern).FindString(html); found != "" {
			t.Errorf("the page contains %q", found)
		}
	}
}

func TestEveryFileThatIsMentionedExists(t *testing.T) {
	t.Parallel()
	files := os.DirFS("assets")
	mentions := regexp.MustCompile(`"(?:/assets/|\./)([a-z.]+)"`)
	names, err := fs.Glob(files, "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		content, err := fs.ReadFile(files, name)
		if err != nil {
			t.Fatal(err)
		}
		for _, mention := range mentions.FindAllStringSubmatch(string(content), -1) {
			if w := get(t, page.AssetsPath+mention[1]); w.Code != http.StatusOK {
				t.Errorf("%s mentions %s: status %d", name, mention[1], w.Code)
			}
		}
	}
}
