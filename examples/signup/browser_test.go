package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// A browser is one tab of a headless Chromium.
type browser struct {
	t   *testing.T
	ctx context.Context
}

// open starts a browser and loads the service's page. Where there is none the test is skipped, except in CI.
func open(t *testing.T, url string) *browser {
	t.Helper()
	path := findBrowser()
	if path == "" {
		const missing = "no chromium, chromium-browser or google-chrome in PATH: the page is not tested"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.WindowSize(1200, 1300))
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &browser{t, ctx}
	// The first action binds the browser's life to its context, which therefore has no deadline.
	started := make(chan error, 1)
	go func() { started <- chromedp.Do(ctx) }()
	select {
	case err := <-started:
		if err != nil {
			t.Fatalf("start %s: %v", path, err)
		}
	case <-time.After(time.Minute):
		t.Fatalf("%s has not started after a minute", path)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("close the browser: %v", err)
		}
	})
	b.do(chromedp.EmulateViewport(1200, 1300), chromedp.Navigate(url))
	return b
}

func findBrowser() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// until waits for an expression to be true.
func (b *browser) until(what, expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.Poll[bool](expression, chromedp.WithPollingTimeout(0)))
	if err == nil {
		return
	}
	if ctx.Err() != nil {
		err = errors.New("it did not come to that")
	}
	b.t.Fatalf("%s: %v; the page reads:\n%s", what, err, eval[string](b, "document.body.innerText"))
}

func eval[T any](b *browser, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// signUp fills the form in as a person does.
func (b *browser) signUp(username, picture string) {
	b.t.Helper()
	b.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("username").select()`), // to write over what is there
		chromedp.SendKeys(chromedp.ID("username"), username))
	if picture != "" {
		b.do(chromedp.SetUploadFiles(chromedp.ID("picture"), []string{picture}))
		b.until("preview of the picture", `!document.getElementById("preview").hidden && document.getElementById("preview").naturalWidth > 0`)
	}
	b.do(chromedp.Click(chromedp.ID("submit")))
}

func (b *browser) untilAllIsDone() {
	b.t.Helper()
	b.until("the time of the answer", `/^Answered in \d/.test(document.getElementById("answered").innerText)`)
	b.until("the request and four tasks done", `document.querySelectorAll('#steps .step[data-state="done"]').length === 5`)
	b.until("the sum", `/^You waited /.test(document.getElementById("sum").innerText)`)
}

// untilFirstOfPeople waits for the newest of so many people, and for the marks of all their tasks.
func (b *browser) untilFirstOfPeople(username string, people int) {
	b.t.Helper()
	b.until(username+" among the people", fmt.Sprintf(`document.querySelector("#people .person-name")?.innerText === %q
		&& document.querySelectorAll("#people .chip.done").length === %d`, username, 3*people))
}

// dark sets what the person prefers.
func (b *browser) dark(on bool) {
	b.t.Helper()
	scheme := "light"
	if on {
		scheme = "dark"
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) phone() {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(400, 800, chromedp.EmulateScale(2), chromedp.EmulateMobile))
}

// brightness of the page's background, from 0 to 255.
func (b *browser) brightness() float64 {
	b.t.Helper()
	return eval[float64](b, `(() => {
		const rgb = getComputedStyle(document.body).backgroundColor.match(/[\d.]+/g).slice(0, 3).map(Number);
		return (rgb[0] + rgb[1] + rgb[2]) / 3;
	})()`)
}

// expectNoSidewaysScrolling also finds what sticks out without making the page wider.
func (b *browser) expectNoSidewaysScrolling() {
	b.t.Helper()
	out := eval[[]string](b, `[...document.querySelectorAll("body, body *")]
		.filter((e) => e.checkVisibility() && !e.closest(".visually-hidden, .skip"))
		.filter((e) => e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)
		.map((e) => e.tagName + "#" + e.id + "." + e.className)`)
	if len(out) > 0 || eval[bool](b, `document.documentElement.scrollWidth > document.documentElement.clientWidth`) {
		b.t.Errorf("the page is wider than %d pixels: %q", eval[int](b, "innerWidth"), out)
	}
}

// collectComplaints watches what the browser says about the page: exceptions, and what the content security policy
// refused.
func (b *browser) collectComplaints() (complaints func() []string) {
	ctx, cancel := context.WithCancel(b.ctx)
	messages := chromedp.Console(ctx)
	found := make(chan []string, 1)
	go func() {
		var all []string
		for m, err := range messages {
			if err != nil {
				break
			}
			all = append(all, m.String())
		}
		found <- all
	}()
	b.t.Cleanup(cancel)
	return func() []string {
		cancel()
		return <-found
	}
}

func TestPage(t *testing.T) {
	addr, _ := serve(t, config{})
	picture := filepath.Join(t.TempDir(), "sunset.jpg")
	if err := os.WriteFile(picture, jpegOf(t, photo(1200, 800)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Grace", "Edsger", "Barbara"} {
		res, err := http.Post("http://"+addr+"/register/"+name, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	b := open(t, "http://"+addr)
	complaints := b.collectComplaints()
	b.dark(false)
	b.do(chromedp.Reload())
	b.until("connected", `document.getElementById("live").dataset.state === "open"`)

	b.signUp("Ada", picture)
	b.untilAllIsDone()
	b.until("the mail", `document.querySelector("#mail .letter h3")?.innerText === "Welcome, Ada!"`)
	b.until("the thumbnail", `(() => {
		const t = document.getElementById("thumbnail");
		return !t.hidden && t.complete && t.naturalWidth === 256 && t.naturalHeight === 170;
	})()`)
	b.untilFirstOfPeople("Ada", 4)
	b.until("the picture among the people", `document.querySelector("#people img.avatar")?.naturalWidth > 0`)
	b.expectNoSidewaysScrolling()
	b.screenshot("signup.png")

	b.signUp("Ada", "")
	b.until("the name is taken", `/taken/i.test(document.getElementById("problem").innerText) && !document.getElementById("problem").hidden`)
	if n := eval[int](b, `document.querySelectorAll("#people li").length`); n != 4 {
		t.Errorf("%d people, want 4", n)
	}

	if light := b.brightness(); light < 200 {
		t.Errorf("the light page has brightness %.0f", light)
	}
	b.dark(true)
	b.until("dark colors", `matchMedia("(prefers-color-scheme: dark)").matches`)
	if dark := b.brightness(); dark > 60 {
		t.Errorf("the dark page has brightness %.0f", dark)
	}
	b.phone()
	b.until("400 pixels", "innerWidth === 400")
	b.expectNoSidewaysScrolling()
	b.signUp("Alan", picture)
	b.untilAllIsDone()
	b.untilFirstOfPeople("Alan", 5)
	b.screenshot("signup-phone.png")
	b.signUp("a-name-that-has-32-characters-12", "")
	b.untilFirstOfPeople("a-name-that-has-32-characters-12", 6)
	b.expectNoSidewaysScrolling()

	for _, complaint := range complaints() {
		if !strings.Contains(complaint, "409") { // the browser notes the refused name
			t.Errorf("the browser says: %s", complaint)
		}
	}
}

// A task that is tried again is shown, and so is what the others did.
func TestPageShowsARetry(t *testing.T) {
	server, _ := startMailServer(t)
	server.be(away)
	addr, _ := serve(t, config{smtp: server.addr()})
	b := open(t, "http://"+addr)
	b.until("connected", `document.getElementById("live").dataset.state === "open"`)
	b.signUp("Ada", "")
	b.until("the mail is tried again", `/^Attempt \d+ did not work. Next: /.test(
		document.querySelector('#steps .step[data-state="retrying"] .step-detail')?.innerText)
		&& /^Send the mail/.test(document.querySelector('#steps .step[data-state="retrying"] .step-name').innerText)`)
	b.until("the others done", `document.querySelectorAll('#steps .step[data-state="done"]').length === 3`)
	b.until("where the mail is", `/outside server/.test(document.getElementById("mail").innerText)`)
	b.expectNoSidewaysScrolling()
	b.phone()
	b.until("400 pixels", "innerWidth === 400")
	b.expectNoSidewaysScrolling()
	server.be(up)
	b.until("all done", `document.querySelectorAll('#steps .step[data-state="done"]').length === 4`)
}

func TestPageShowsAFailedTask(t *testing.T) {
	crmServer := newCRM(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnprocessableEntity) })
	addr, _ := serve(t, config{crm: crmServer})
	b := open(t, "http://"+addr)
	b.until("connected", `document.getElementById("live").dataset.state === "open"`)
	b.signUp("Ada", "")
	b.until("one task failed", `/^Update the CRM/.test(document.querySelector('#steps .step[data-state="failed"] .step-name')?.innerText)`)
	b.until("the others done", `document.querySelectorAll('#steps .step[data-state="done"]').length === 3`)
}

// A process without workers tells nothing of queued tasks; the page comes right all the same.
func TestPageFollowsAWorkerElsewhere(t *testing.T) {
	server, _ := startMailServer(t)
	web := programIn(t, t.TempDir(), []string{"serve", "--no-workers"}, "SIGNUP_SMTP="+server.addr())
	b := open(t, web.url)
	b.until("connected", `document.getElementById("live").dataset.state === "open"`)
	picture := filepath.Join(t.TempDir(), "sunset.jpg")
	if err := os.WriteFile(picture, jpegOf(t, photo(300, 200)), 0o600); err != nil {
		t.Fatal(err)
	}
	b.signUp("Ada", picture)
	b.until("what is in memory is done", `document.querySelectorAll('#steps .step[data-state="done"]').length === 2`)
	b.until("what is on disk waits", `document.querySelectorAll('#steps .step[data-state="waiting"]').length === 3`)
	worker := programIn(t, web.dir, []string{"worker"}, "SIGNUP_SMTP="+server.addr())
	b.untilAllIsDone()
	b.untilFirstOfPeople("Ada", 1)
	worker.stop(t)
}

// The page stays open while the process is killed and started again. What was in memory is lost, and what was on disk
// is done.
func TestPageSurvivesAKill(t *testing.T) {
	server, _ := startMailServer(t)
	server.be(stuck)
	front := newFront(t)
	first := program(t, "SIGNUP_SMTP="+server.addr())
	front.lead(t, first.url)
	b := open(t, front.url)
	b.until("connected", `document.getElementById("live").dataset.state === "open"`)
	b.signUp("Ada", "")
	b.until("the answer", `/^Answered in /.test(document.getElementById("answered").innerText)`)
	<-server.called
	first.kill(t)
	b.until("disconnected", `document.getElementById("live").dataset.state === "lost"`)

	server.be(up)
	again := programIn(t, first.dir, nil, "SIGNUP_SMTP="+server.addr())
	front.lead(t, again.url)
	b.until("what is lost", `/^Write the log/.test(document.querySelector('#steps .step[data-state="lost"] .step-name')?.innerText)`)
	b.until("what is done", `document.querySelectorAll('#steps .step[data-state="done"]').length === 3`)
	b.until("the sum", `/What was in memory alone is lost/.test(document.getElementById("sum").innerText)`)
}

// screenshot renews a picture in the documentation:
//
//	SIGNUP_SCREENSHOTS=$PWD/docs/images go test -run TestPage ./examples/signup
func (b *browser) screenshot(name string) {
	b.t.Helper()
	dir := os.Getenv("SIGNUP_SCREENSHOTS")
	if dir == "" {
		return
	}
	b.do(chromedp.Evaluate[chromedp.Void](`document.activeElement.blur();
		scrollTo(0, innerWidth > 560 ? 0 : document.getElementById("timeline-title").getBoundingClientRect().top + scrollY - 36)`))
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	shot, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), lighter(b.t, shot), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// lighter compresses a PNG that the browser wrote in a hurry, and drops differences of color that nobody sees.
func lighter(t *testing.T, shot []byte) []byte {
	t.Helper()
	picture, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		t.Fatal(err)
	}
	rounded := image.NewRGBA(picture.Bounds())
	draw.Draw(rounded, rounded.Bounds(), picture, picture.Bounds().Min, draw.Src)
	for i, v := range rounded.Pix {
		rounded.Pix[i] = v - v%5 // white stays white
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, rounded); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
