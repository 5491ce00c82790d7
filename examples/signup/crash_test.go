package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/examples/signup/internal/crm"
	"github.com/wake-go/wake/examples/signup/internal/users"
	"github.com/wake-go/wake/lifespan"
)

// The promise of the queue: who was answered gets the mail, also if the process is killed before it is sent.
func TestKilledBetweenAnswerAndMail(t *testing.T) {
	t.Parallel()
	server, mailbox := startMailServer(t)
	server.be(stuck)
	first := program(t, "SIGNUP_SMTP="+server.addr())
	first.mustRegister(t, "Ada")
	<-server.called // the task runs
	first.kill(t)

	server.be(up)
	again := programIn(t, first.dir, nil, "SIGNUP_SMTP="+server.addr())
	if all := again.untilServed(t); len(all) != 1 || all[0].Username != "Ada" {
		t.Errorf("after the second start: %+v", all)
	}
	again.stop(t)
	expectMails(t, mailbox, 1, "Ada")
	_, queue := openUsers(t, first.dir)
	tasks, err := queue.List(t.Context(), durable.Filter{Kind: "send_welcome_email"}, durable.Page{})
	if err != nil || len(tasks) != 1 || tasks[0].State != durable.Succeeded || tasks[0].Crashes != 1 || tasks[0].Attempt != 1 {
		t.Errorf("the task in the end: %+v, %v", tasks, err)
	}
}

// Web and workers are two processes on one file.
func TestAWorkerOfItsOwn(t *testing.T) {
	t.Parallel()
	server, mailbox := startMailServer(t)
	web := programIn(t, t.TempDir(), []string{"serve", "--no-workers"}, "SIGNUP_SMTP="+server.addr())
	web.mustRegister(t, "Ada")
	if mails := mailbox.Messages(); len(mails) > 0 {
		t.Errorf("without a worker there is mail: %+v", mails)
	}
	worker := programIn(t, web.dir, []string{"worker"}, "SIGNUP_SMTP="+server.addr())
	web.untilServed(t)
	web.mustRegister(t, "Grace")
	all := web.untilServed(t)
	if len(all) != 2 || !all[0].Logged || !all[1].Logged {
		t.Errorf("in the end: %+v", all)
	}
	web.stop(t)
	worker.stop(t)
	expectMails(t, mailbox, 1, "Ada", "Grace")
}

// A crowd registers users, each name twice, for as long as there is a process that answers.
type crowd struct {
	names    []string
	accepted []atomic.Int32 // answers with status 200
	over     []atomic.Bool  // names that are known to be taken
	answers  atomic.Int32
}

func newCrowd(size int) *crowd {
	c := &crowd{accepted: make([]atomic.Int32, size), over: make([]atomic.Bool, size)}
	for i := range size {
		c.names = append(c.names, fmt.Sprintf("user-%03d", i))
	}
	return c
}

// register returns when p has ended, or every name is taken. It calls at when so many answers have come.
func (c *crowd) register(t *testing.T, p *process, answers int32, at func()) {
	last := c.answers.Load() + answers
	var members sync.WaitGroup
	for member := range 4 {
		members.Go(func() {
			for i := range c.names {
				i = (i + member/2*len(c.names)/2) % len(c.names)
				if c.over[i].Load() {
					continue
				}
				switch status := p.register(c.names[i]); status {
				case 0:
					return
				case http.StatusOK:
					c.accepted[i].Add(1)
					c.over[i].Store(true)
					if c.answers.Add(1) == last {
						at()
					}
				case http.StatusConflict:
					c.over[i].Store(true)
				case http.StatusServiceUnavailable: // it stops
				default:
					t.Errorf("%s is answered %d", c.names[i], status)
				}
			}
		})
	}
	members.Wait()
}

// expectKept wants everybody who was answered to be among the users, and nobody to have been answered twice.
func (c *crowd) expectKept(t *testing.T, all []users.User) {
	t.Helper()
	stored := map[string]bool{}
	for _, u := range all {
		stored[u.Username] = true
	}
	for i, name := range c.names {
		if n := c.accepted[i].Load(); n > 1 {
			t.Errorf("%s was registered %d times", name, n)
		} else if n == 1 && !stored[name] {
			t.Errorf("%s was answered 200, and is lost", name)
		}
	}
}

func startCRM(t *testing.T) *crm.Stub {
	t.Helper()
	stub, err := crm.StartStub(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stub.Close(); err != nil {
			t.Error(err)
		}
	})
	return stub
}

// Two kills meet the same tasks, the third one others: a task that was running in three crashes would be parked, as
// what may have caused them, see [durable.MaxCrashes]. It takes seconds, because what was running in two of them runs
// one at a time.
func TestThreeKillsLoseNothing(t *testing.T) {
	t.Parallel()
	const kills = 3
	server, mailbox := startMailServer(t)
	stub := startCRM(t)
	people := newCrowd(60)
	dir := t.TempDir()
	start := func() *process {
		return programIn(t, dir, nil, "SIGNUP_SMTP="+server.addr(), "SIGNUP_CRM="+stub.URL())
	}
	for kill := range kills {
		p := start()
		if kill == kills-1 {
			p.untilServed(t)
		}
		people.register(t, p, 8, func() { _ = p.cmd.Process.Kill() })
		p.exitCode(t)
	}
	p := start()
	people.register(t, p, 0, nil)
	all := p.untilServed(t)
	p.stop(t)

	people.expectKept(t, all)
	if len(all) != len(people.names) || len(stub.Contacts()) != len(all) {
		t.Errorf("%d users and %d contacts, want %d", len(all), len(stub.Contacts()), len(people.names))
	}
	// Twice only where a kill came between the server's yes and the mark.
	expectMails(t, mailbox, 1+kills, people.names...)
	twice := 0
	for _, message := range mailbox.Messages() {
		twice += message.Deliveries - 1
	}
	if most := kills * 20; twice > most {
		t.Errorf("%d mails were sent again, want at most %d", twice, most)
	}
}

// What is asked to stop finishes what it has begun, leaves the rest in the queue, and the next process does it.
func TestSIGTERMUnderLoadLosesNothing(t *testing.T) {
	t.Parallel()
	server, mailbox := startMailServer(t)
	stub := startCRM(t)
	people := newCrowd(60)
	p := program(t, "SIGNUP_SMTP="+server.addr(), "SIGNUP_CRM="+stub.URL())
	people.register(t, p, 30, func() { _ = p.cmd.Process.Signal(syscall.SIGTERM) })
	if code := p.exitCode(t); code != lifespan.ExitOK {
		t.Errorf("exit code %d", code)
	}
	t.Run("stored", func(t *testing.T) {
		store, queue := openUsers(t, p.dir)
		all, err := store.All(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		people.expectKept(t, all)
		expectDoneOrQueued(t, all, queue)
	})
	again := programIn(t, p.dir, nil, "SIGNUP_SMTP="+server.addr(), "SIGNUP_CRM="+stub.URL())
	all := again.untilServed(t)
	again.stop(t)
	var names []string
	for _, u := range all {
		names = append(names, u.Username)
		if !u.Logged {
			t.Errorf("%s is not in the log: a gentle stop lost a task in memory", u.Username)
		}
	}
	expectMails(t, mailbox, 1, names...)
}

func expectDoneOrQueued(t *testing.T, all []users.User, queue *durable.Queue) {
	t.Helper()
	waiting := map[string]int{}
	tasks, err := queue.List(t.Context(), durable.Filter{States: []durable.State{durable.Ready, durable.Scheduled}}, durable.Page{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		waiting[task.Kind]++
	}
	open := map[string]int{}
	for _, u := range all {
		for kind, done := range map[string]bool{"log_registration": u.Logged, "send_welcome_email": u.Emailed, "update_crm": u.CRM} {
			if !done {
				open[kind]++
			}
		}
	}
	for kind, n := range open {
		if waiting[kind] < n {
			t.Errorf("%d users wait for %s, and %d tasks are in the queue", n, kind, waiting[kind])
		}
	}
}
