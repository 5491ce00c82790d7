package wake

import (
	"html/template"
	"net/http"

	"github.com/swaggest/swgui/v5/static"
	"github.com/vearutop/statigz"
)

// docsPage shows the OpenAPI document with Swagger UI, from the program
// itself: it works without the internet, and asks nobody else for scripts. Its
// links are relative, so that it also works below a prefix.
var docsPage = template.Must(template.New("docs").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.}}: API</title>
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui">
<noscript>This page needs JavaScript. The document it shows is <a href="openapi.json">openapi.json</a>.</noscript>
</div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
`))

const docsScript = `SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true});
`

// docsPolicy allows what Swagger UI needs: its own scripts, the styles and
// images it makes, and requests to the API it is about.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func (h *host) handleDocs(title string) {
	assets := http.StripPrefix("/docs", statigz.FileServer(static.FS))
	h.handle("GET /docs", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		docsHeader(w, "text/html; charset=utf-8")
		_ = docsPage.Execute(w, title) // the reader may have gone
	}))
	h.handle("GET /docs/start.js", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		docsHeader(w, "text/javascript; charset=utf-8")
		_, _ = w.Write([]byte(docsScript))
	}))
	for _, name := range []string{"swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"} {
		h.handle("GET /docs/"+name, assets)
	}
}

func docsHeader(w http.ResponseWriter, contentType string) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Security-Policy", docsPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
}
