package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/gif"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/examples/signup/internal/thumbnail"
)

// patience is how long a test waits for what should come at once.
const patience = 20 * time.Second

// closed stands for a connection that net/http closes: without an answer, or with one in plain text where it could make
// no request of what was sent.
const closed = 0

// send writes bytes to a new connection and returns the answer. It is nil if the connection was closed without one.
func send(t *testing.T, addr string, request []byte) (answer *http.Response, body []byte) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	// A server that has seen enough answers and closes while this is still writing.
	_, writeErr := conn.Write(request)
	answer, err = http.ReadResponse(bufio.NewReader(conn), nil)
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(writeErr, os.ErrDeadlineExceeded) {
		t.Errorf("the connection was neither answered nor closed: %v", errors.Join(writeErr, err))
	}
	if err != nil {
		return nil, nil
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(answer.Body)
	if err != nil {
		t.Errorf("read the answer's body: %v", err)
	}
	return answer, body
}

// expectRefusal sends a request and wants a problem with this status, or for closed a connection that is closed.
func expectRefusal(t *testing.T, addr string, request []byte, status int) {
	t.Helper()
	answer, body := send(t, addr, request)
	if status == closed {
		if answer != nil && (answer.StatusCode < 400 || answer.StatusCode > 499 || !answer.Close) {
			t.Errorf("answer %s, want a closed connection", answer.Status)
		}
		return
	}
	if answer == nil {
		t.Errorf("the connection was closed, want status %d", status)
		return
	}
	var problem struct{ Status int }
	err := json.Unmarshal(body, &problem)
	if answer.StatusCode != status || answer.Header.Get("Content-Type") != "application/problem+json" || err != nil || problem.Status != status {
		t.Errorf("answer %s, type %q: %s; want a problem with status %d", answer.Status, answer.Header.Get("Content-Type"), body, status)
	}
}

// request is the text of one: name is written as it is, header lines are separated by "\n".
func request(name, header string, body []byte) []byte {
	header = strings.ReplaceAll(strings.TrimSpace("Host: test\n"+header), "\n", "\r\n")
	return append(fmt.Appendf(nil, "POST /register/%s HTTP/1.1\r\n%s\r\nContent-Length: %d\r\n\r\n", name, header, len(body)), body...)
}

// upload is a request with a form of one file.
func upload(t *testing.T, field string, content []byte) []byte {
	t.Helper()
	body, contentType := form(t, field, content)
	return request("Mallory", "Content-Type: "+contentType, body)
}

// chunked is a request whose body has no length.
func chunked(header string, body []byte) []byte {
	b := fmt.Appendf(nil, "POST /register/Mallory HTTP/1.1\r\nHost: test\r\n%s\r\nTransfer-Encoding: chunked\r\n\r\n", header)
	b = fmt.Appendf(b, "%x\r\n", len(body))
	return append(append(b, body...), "\r\n0\r\n\r\n"...)
}

type badInput struct {
	name    string
	request []byte
	status  int
}

func badInputs(t *testing.T) []badInput {
	t.Helper()
	return append(append(badNames(), badForms(t)...), append(badPictures(t), badHeaders()...)...)
}

func badNames() []badInput {
	name := func(what, name string, status int) badInput {
		return badInput{"name/" + what, request(name, "", nil), status}
	}
	return []badInput{
		name("empty", "", 404),
		name("one character", "a", 422),
		name("33 characters", strings.Repeat("a", 33), 422),
		name("100 kB", strings.Repeat("a", 100_000), closed),
		name("slash", "a%2Fb", 422),
		name("slash that is one", "a/b", 404),
		name("dots", "..", 404),
		name("escaped dots", "%2e%2e", 422),
		name("dots and a name", "../register/Mallory", 404),
		name("NUL", "a%00b", 422),
		name("NUL that is one", "a\x00b", closed),
		name("emoji", "%F0%9F%9A%A2ship", 422),
		name("emoji that is one", "🚢ship", 422),
		name("half an emoji", "ship%F0%9F", 422),
		name("line break", "a%0D%0AB", 422),
		name("space", "a%20b", 422),
		name("space that is one", "a b", closed),
		name("percent", "a%b", closed),
		name("quote", "a%27%3B--", 422),
	}
}

func badForms(t *testing.T) []badInput {
	t.Helper()
	const multipart = "Content-Type: multipart/form-data; boundary=x"
	field := func(header, value string) []byte {
		return []byte("--x\r\nContent-Disposition: form-data" + header + "\r\n\r\n" + value + "\r\n--x--\r\n")
	}
	picture := `; name="picture"; filename="p.png"`
	twice := bytes.Replace(field(picture, "1"), []byte("--x--"), field(picture, "2"), 1)
	return []badInput{
		{"form/JSON", request("Mallory", "Content-Type: application/json", []byte(`{"admin":true}`)), 422},
		{"form/JSON of the wrong type", request("Mallory", "Content-Type: application/json", []byte(`[1,null`)), 422},
		{"form/fields in the body", request("Mallory", "Content-Type: application/x-www-form-urlencoded", []byte("admin=true")), 422},
		{"form/body without a type", request("Mallory", "", []byte("hello")), 422},
		{"form/chunks without a type", chunked("Accept: */*", []byte("hello")), 422},
		{"form/unknown field", request("Mallory", multipart, field(`; name="admin"`, "true")), 422},
		{"form/unknown file", upload(t, "portrait", pngOf(t, photo(8, 8))), 422},
		{"form/picture as text", request("Mallory", multipart, field(`; name="picture"`, "hello")), 422},
		{"form/two pictures", request("Mallory", multipart, twice), 422},
		{"form/no boundary", request("Mallory", "Content-Type: multipart/form-data", field(picture, "1")), 422},
		{"form/another boundary", request("Mallory", "Content-Type: multipart/form-data; boundary=y", field(picture, "1")), 422},
		{"form/empty", request("Mallory", multipart, nil), 422},
		{"form/without an end", request("Mallory", multipart, []byte("--x\r\nContent-Disposition: form-data"+picture+"\r\n\r\n1")), 422},
		{"form/broken part header", request("Mallory", multipart, []byte("--x\r\n\x00\xff: \x01\r\nno colon\r\n\r\n1\r\n--x--\r\n")), 422},
		{"form/2,000 parts", request("Mallory", multipart, bytes.Repeat([]byte("--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n"), 2000)), 422},
		{"form/100,000 part headers", request("Mallory", multipart, append([]byte("--x\r\n"), bytes.Repeat([]byte("a: b\r\n"), 100_000)...)), 422},
		{"form/bad chunk", []byte("POST /register/Mallory HTTP/1.1\r\nHost: test\r\n" + multipart + "\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n--x"), 400},
	}
}

func badPictures(t *testing.T) []badInput {
	t.Helper()
	whole, photograph := pngOf(t, photo(64, 64)), jpegOf(t, photo(64, 64))
	var animation bytes.Buffer
	if err := gif.Encode(&animation, image.NewGray(image.Rect(0, 0, 8, 8)), nil); err != nil {
		t.Fatal(err)
	}
	sixMiB, contentType := form(t, "picture", append(bytes.Clone(whole), make([]byte, 6<<20)...))
	return []badInput{
		{"picture/6 MiB", request("Mallory", "Content-Type: "+contentType, sixMiB)[:200], 413}, // refused before it is sent
		{"picture/6 MiB in chunks", chunked("Content-Type: "+contentType, sixMiB), 413},
		{"picture/a byte too large", upload(t, "picture", append(bytes.Clone(whole), make([]byte, thumbnail.MaxBytes+1-len(whole))...)), 413},
		{"picture/PNG without its end", upload(t, "picture", whole[:len(whole)/2]), 422},
		{"picture/JPEG without its end", upload(t, "picture", photograph[:len(photograph)/2]), 422},
		{"picture/PNG with a wrong byte", upload(t, "picture", bytes.Replace(whole, []byte("IDAT"), []byte("IDAT\x01"), 1)), 422},
		{"picture/GIF", upload(t, "picture", animation.Bytes()), 415},
		{"picture/SVG", upload(t, "picture", []byte(`<svg xmlns="http://www.w3.org/2000/svg"/>`)), 415},
		{"picture/text", upload(t, "picture", []byte("hello")), 415},
		{"picture/nothing", upload(t, "picture", nil), 415},
		{"picture/bomb", upload(t, "picture", bomb(t)), 422},
		{"picture/bomb by its header", upload(t, "picture", pngHeader(1<<31-1, 1<<31-1, 8, 6)), 422},
		{"picture/no pixels", upload(t, "picture", pngHeader(0, 0, 8, 6)), 422},
	}
}

func badHeaders() []badInput {
	var many strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&many, "X-Header-%d: 1\n", i)
	}
	return []badInput{
		{"header/10,000", request("Mallory", many.String(), nil), closed},
		{"header/1 MB", request("Mallory", "X-Long: "+strings.Repeat("a", 1<<20), nil), closed},
		{"header/two lengths", request("Mallory", "Content-Length: 5", nil), closed},
		{"header/length of a negative number", []byte("POST /register/Mallory HTTP/1.1\r\nHost: test\r\nContent-Length: -1\r\n\r\n"), closed},
		{"header/two hosts", request("Mallory", "Host: other", nil), closed},
		{"header/not HTTP", []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03hello\r\n\r\n"), closed},
		{"header/another method", []byte("DELETE /register/Mallory HTTP/1.1\r\nHost: test\r\n\r\n"), 405},
		{"header/slow", []byte("POST /register/Mallory HTTP/1.1\r\nHost: test\r\nX-Slow: "), closed},
		{"header/slow body", []byte("POST /register/Mallory HTTP/1.1\r\nHost: test\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 99\r\n\r\n--x\r\n"), 408},
	}
}

// storedIn tells what is kept outside of the request: the rows, and the uploads that a form left on disk.
func storedIn(t *testing.T, addr, tempDir string) string {
	t.Helper()
	res, err := http.Get("http://" + addr + "/data")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(tempDir)
	if err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	return fmt.Sprintf("%s and %d temporary files", data, len(files))
}

func heap() (live, allocated uint64) {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // the first one frees what finalizers and pools held
	runtime.ReadMemStats(&m)
	return m.HeapAlloc, m.TotalAlloc
}

func TestBadInputIsRefusedAndLeavesNothing(t *testing.T) {
	tempDir := t.TempDir()
	t.Setenv("TMPDIR", tempDir) // where large forms wait
	addr, _ := serve(t, config{}, wake.HeaderTimeout(300*time.Millisecond), wake.BodyTimeout(2*time.Second))
	body, contentType := form(t, "picture", pngOf(t, photo(64, 64)))
	if answer, body := send(t, addr, request("Ada", "Content-Type: "+contentType, body)); answer == nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("a good request is refused: %v %s", answer, body)
	}
	inputs := badInputs(t)
	// Everything that is made once has been made after one round.
	for _, input := range inputs {
		t.Run(input.name, func(t *testing.T) { expectRefusal(t, addr, input.request, input.status) })
	}
	stored := storedIn(t, addr, tempDir)
	if !strings.Contains(stored, `"Ada"`) || strings.Count(stored, "username") != 1 || !strings.HasSuffix(stored, "and 0 temporary files") {
		t.Errorf("stored after the first round: %s", stored)
	}
	before, _ := heap()
	for range 3 {
		var round sync.WaitGroup
		for _, input := range inputs {
			round.Go(func() { expectRefusal(t, addr, input.request, input.status) })
		}
		round.Wait()
	}
	if after := storedIn(t, addr, tempDir); after != stored {
		t.Errorf("stored before: %s\nstored after: %s", stored, after)
	}
	if after, _ := heap(); after > before+4<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
}

// What is allocated in total bounds what is in use at any moment.
func TestBombsCostLittleMemory(t *testing.T) {
	const bombs, most = 100, 1 << 20
	addr, _ := serve(t, config{})
	body := upload(t, "picture", bomb(t))
	expectRefusal(t, addr, body, http.StatusUnprocessableEntity)
	_, before := heap()
	var all sync.WaitGroup
	for range bombs {
		all.Go(func() { expectRefusal(t, addr, body, http.StatusUnprocessableEntity) })
	}
	all.Wait()
	if _, after := heap(); after-before > bombs*most {
		t.Errorf("%d bombs allocated %d bytes, want at most %d each", bombs, after-before, most)
	}
}
