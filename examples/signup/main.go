// Signup is a service that answers a registration at once and does what follows from it afterwards: it logs the
// registration, sends a welcome mail, resizes the profile picture and tells the CRM.
//
//	go run ./examples/signup
//	curl -X POST localhost:8000/register/Ada
//	curl -F picture=@ada.jpg localhost:8000/register/Ada-with-a-picture
//
// The log entry is a task in memory: it costs next to nothing, and is lost if the process is killed. The other tasks are
// stored in the same transaction as the user, in the same SQLite file: whatever happens to the process, they run, and are
// tried again until they succeed. Kill the process between the answer and the mail, and start it again, to see it.
//
// Its page, http://localhost:8000, shows all of that while it happens. The first run needs nothing but Go: the mail goes
// to a mail catcher in the same process, and the CRM is a stub there. The environment replaces both, see config.go; where
// the tasks have a process of their own, it has to:
//
//	go run ./examples/signup serve --no-workers
//	go run ./examples/signup worker
package main

import (
	"net/http"
	"os"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/examples/signup/internal/page"
	"github.com/wake-go/wake/examples/signup/internal/users"
)

func main() {
	wake.Main(newApp(configFrom(os.Getenv)))
}

func newApp(cfg config) *wake.App[*State] {
	app := wake.New("Signup", "1.0", cfg.life, wake.Queue(database),
		wake.Description("Answers first. The work follows in its wake."))

	wake.Post(app, "/register/{username}", register, wake.BodyLimit(maxUpload),
		wake.Errors(http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType))
	wake.Get(app, "/data", data)
	wake.Get(app, "/mail", mail)
	wake.Get(app, users.PicturePath+"{username}", picture)
	wake.Stream(app, "/events", events)
	wake.ServeTasks(app, taskPath, whoeverKnowsTheID)
	app.Handle("GET /{$}", page.Handler())
	app.Handle("GET "+page.AssetsPath, page.Handler())

	app.Tasks(LogRegistration, SendWelcomeEmail, ResizePicture, UpdateCRM)
	return app
}
