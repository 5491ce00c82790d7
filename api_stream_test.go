package wake_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/waketest"
)

func TestAStreamSendsEvents(t *testing.T) {
	app, _ := newWorld()
	wake.Stream(app, "/events", func(_ context.Context, _ *none, c wake.StreamCall[*world]) error {
		for _, v := range []any{
			nil, textAnswer{"plain"},
			wake.Event{Name: "note", ID: "7", Data: "line\nbreak", Wait: 1500 * time.Millisecond},
		} {
			if err := c.Send(v); err != nil {
				return err
			}
		}
		for _, bad := range []wake.Event{{Name: "a\nb"}, {ID: "a\rb"}, {Data: make(chan int)}} {
			if err := c.Send(bad); err == nil {
				t.Errorf("%+v was sent", bad)
			}
		}
		return nil
	})
	res := waketest.Start(t, app).Get("/events")
	want := "data: {\"text\":\"plain\"}\n\n" + "event: note\nid: 7\nretry: 1500\ndata: \"line\\nbreak\"\n\n"
	if res.Status != http.StatusOK || string(res.Body) != want {
		t.Errorf("got %v, want %q", res, want)
	}
	for name, value := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"} {
		if got := res.Header.Get(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
}

func TestAStreamsEventsArriveAsTheyAreSentAndItsTasksRunAtItsEnd(t *testing.T) {
	app, w := newWorld()
	next := make(chan struct{})
	wake.Stream(app, "/events", func(_ context.Context, _ *none, c wake.StreamCall[*world]) error {
		c.Tasks.Add(noted.With("task"))
		for range 2 {
			if err := c.Send("tick"); err != nil {
				return err
			}
			<-next
		}
		w.note("end")
		return nil
	})
	client := waketest.Start(t, app)
	res, err := client.HTTP().Get(client.URL("/events"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	r := bufio.NewReader(res.Body)
	for range 2 {
		if line, err := r.ReadString('\n'); err != nil || line != "data: \"tick\"\n" {
			t.Fatalf("%q, %v", line, err)
		}
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		w.expect(t)
		next <- struct{}{}
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	if err := client.Stop(); err != nil {
		t.Error(err)
	}
	w.expect(t, "end", "task")
}

func TestAStreamThatFailsBeforeItsFirstEventAnswersAProblem(t *testing.T) {
	app, w := newWorld()
	type input struct {
		How string `query:"how"`
	}
	wake.Stream(app, "/events", func(_ context.Context, in *input, c wake.StreamCall[*world]) error {
		c.Tasks.Add(noted.With(in.How))
		switch in.How {
		case "forbidden":
			return &wake.Error{Status: http.StatusForbidden, Detail: "not yours", Header: http.Header{"X-Why": {"because"}}}
		case "error":
			return errors.New("hunter2")
		case "panic":
			panic("hunter2")
		}
		return nil
	})
	client := waketest.Start(t, app)
	res := client.Get("/events?how=forbidden")
	if p := problemOf(t, res, http.StatusForbidden); p.Detail != "not yours" || res.Header.Get("X-Why") != "because" {
		t.Errorf("got %v, %v", res, res.Header)
	}
	for _, how := range []string{"error", "panic"} {
		if res := client.Get("/events?how=" + how); problemOf(t, res, http.StatusInternalServerError).Detail == "" || strings.Contains(res.String(), "hunter2") {
			t.Errorf("%s: %v", how, res)
		}
	}
	w.expect(t)
	res = client.Get("/events?how=empty")
	if res.Status != http.StatusOK || len(res.Body) != 0 || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("a stream without events: %v", res)
	}
	if err := client.Stop(); err != nil {
		t.Error(err)
	}
	w.expect(t, "empty")
}

func TestAStreamThatFailsLaterIsLoggedAndDropsItsTasks(t *testing.T) {
	app, w := newWorld()
	var logs logbook
	wake.Stream(app, "/events", func(_ context.Context, _ *none, c wake.StreamCall[*world]) error {
		c.Tasks.Add(noted.With("never"))
		c.Tasks.Always(noted.With("always"))
		if err := c.Send(1); err != nil {
			return err
		}
		return errors.New("the source is gone")
	})
	client := waketest.Start(t, app, waketest.With(logs.option()))
	if res := client.Get("/events"); string(res.Body) != "data: 1\n\n" {
		t.Errorf("got %v", res)
	}
	if err := client.Stop(); err != nil {
		t.Error(err)
	}
	if got := logs.line(t, "stream failed")["error"]; got != "the source is gone" {
		t.Errorf("logged %q", got)
	}
	w.expect(t, "always")
}

func TestAStreamWhoseClientIsGoneEndsAndItsTasksRun(t *testing.T) {
	app, w := newWorld()
	cause := make(chan error, 1)
	wake.Stream(app, "/events", func(ctx context.Context, _ *none, c wake.StreamCall[*world]) error {
		c.Tasks.Add(noted.With("task"))
		if err := c.Send("hello"); err != nil {
			return err
		}
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return ctx.Err()
	})
	srv := serveOnWire(t, app)
	conn := srv.dial()
	if _, err := io.WriteString(conn, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := wait(t, cause, "the end of the stream"); !errors.Is(err, context.Canceled) {
		t.Errorf("the stream ended with %v", err)
	}
	srv.stop()
	if err := srv.err(); err != nil {
		t.Error(err)
	}
	w.expect(t, "task")
}

func TestAQuietStreamIsKeptAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, _ := newWorld()
		wake.Stream(app, "/events", func(_ context.Context, _ *none, c wake.StreamCall[*world]) error {
			if err := c.Send("first"); err != nil {
				return err
			}
			time.Sleep(40 * time.Second)
			return c.Send("last")
		})
		client := waketest.Start(t, app)
		res := client.Get("/events")
		if want := "data: \"first\"\n\n: \n\n: \n\ndata: \"last\"\n\n"; string(res.Body) != want {
			t.Errorf("got %q, want %q", res.Body, want)
		}
		if err := client.Stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAStreamTakesItsPlaceInALaneAtItsEnd(t *testing.T) {
	app, w := newWorld(smallLane(1, 1))
	small := wake.Define("small", func(_ context.Context, w *world, what string) error { w.note(what); return nil }, wake.Lane("small"))
	wake.Stream(app, "/events", func(ctx context.Context, _ *none, c wake.StreamCall[*world]) error {
		for _, what := range []string{"a", "b", "c"} { // more than the lane takes
			c.Tasks.Add(small.With(what))
		}
		return errors.Join(ctx.Err(), c.Send(1))
	})
	client := waketest.Start(t, app)
	if res := client.Get("/events"); string(res.Body) != "data: 1\n\n" {
		t.Errorf("got %v", res)
	}
	if err := client.Stop(); err != nil {
		t.Error(err)
	}
	w.expect(t, "a", "b", "c")
}

func TestNothingIsSentAfterAStreamHasEnded(t *testing.T) {
	app, _ := newWorld()
	sends := make(chan func(any) error, 1)
	wake.Stream(app, "/events", func(_ context.Context, _ *none, c wake.StreamCall[*world]) error {
		sends <- c.Send
		return c.Send(1)
	})
	client := waketest.Start(t, app)
	if res := client.Get("/events"); string(res.Body) != "data: 1\n\n" {
		t.Errorf("got %v", res)
	}
	if err := (<-sends)("late"); err == nil || !strings.Contains(err.Error(), "has returned") {
		t.Errorf("a late event: %v", err)
	}
}

func TestHeadOfAStreamIsItsHeaderAndEnds(t *testing.T) {
	app, _ := newWorld()
	wake.Stream(app, "/events", func(ctx context.Context, _ *none, c wake.StreamCall[*world]) error {
		if err := c.Send("hello"); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	})
	got := serveOnWire(t, app).talk("HEAD /events HTTP/1.1\nHost: x\nConnection: close\n\n")
	if !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.Contains(got, "text/event-stream") || strings.Contains(got, "hello") {
		t.Errorf("got %s", got)
	}
}

func TestTheRequestOfAStreamHasItsId(t *testing.T) {
	app, _ := newWorld()
	type input struct {
		N int `query:"n" minimum:"1"`
	}
	wake.Stream(app, "/events", func(ctx context.Context, in *input, c wake.StreamCall[*world]) error {
		return c.Send([]any{background.RequestID(ctx), c.Request.Method, in.N})
	})
	client := waketest.Start(t, app)
	if res := client.Get("/events?n=3", "X-Request-Id", "r-1"); string(res.Body) != "data: [\"r-1\",\"GET\",3]\n\n" {
		t.Errorf("got %v", res)
	}
	problemOf(t, client.Get("/events?n=0"), http.StatusUnprocessableEntity)
}
