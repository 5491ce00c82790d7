package background

import (
	"context"
	"fmt"
	"time"
)

// An entry is one task of a list, or a group of tasks.
type entry struct {
	name    string
	run     func(context.Context) error
	values  context.Context
	lane    *lane
	timeout time.Duration
	handoff any
	group   *[]entry
	always  bool
}

// entries checks tasks: a mistake here is the programmer's. It appends to buf,
// which a caller has on its stack.
func (r *Runner) entries(buf []entry, values context.Context, tasks []Task) []entry {
	for _, t := range tasks {
		if t.Name == "" {
			panic("background: a task needs a name: it is how logs and reports tell which one failed")
		}
		if t.Run == nil {
			panic(fmt.Sprintf("background: task %q has no function to run", t.Name))
		}
		e := entry{name: t.Name, run: t.Run, values: values, timeout: t.Timeout, handoff: t.Handoff}
		if r != nil {
			e.lane = r.lane(t.Name, t.Lane)
			if t.Timeout == 0 {
				e.timeout = r.cfg.Timeout
			}
		}
		buf = append(buf, e)
	}
	return buf
}

// count counts tasks.
func count(entries []entry) (n int) {
	for i := range entries {
		if g := entries[i].group; g != nil {
			n += len(*g)
		} else {
			n++
		}
	}
	return n
}

// flat returns tasks without their groups.
func flat(entries []entry) (tasks []entry) {
	for i := range entries {
		if g := entries[i].group; g != nil {
			tasks = append(tasks, *g...)
		} else {
			tasks = append(tasks, entries[i])
		}
	}
	return tasks
}

// reserve takes a place for each task, or none at all.
func reserve(entries []entry) error {
	for i := range entries {
		var err error
		if e := &entries[i]; e.group != nil {
			err = reserve(*e.group)
		} else if !e.lane.reserve() {
			err = &FullError{Lane: e.lane.name, Task: e.name, Capacity: int(e.lane.capacity())}
		}
		if err != nil {
			giveBack(entries[:i])
			return err
		}
	}
	return nil
}

func giveBack(entries []entry) {
	for i := range entries {
		if e := &entries[i]; e.group != nil {
			giveBack(*e.group)
		} else {
			e.lane.giveBack()
		}
	}
}
