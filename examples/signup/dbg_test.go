package main
import ("testing";"time";"fmt"
"github.com/wake-go/wake/durable")
func dbg(t *testing.T, dir string) {
	_, q := openUsers(t, dir)
	ts, err := q.List(t.Context(), durable.Filter{States: []durable.State{durable.Ready, durable.Running, durable.Scheduled, durable.Dead}}, durable.Page{})
	now, _ := q.Store().Now(t.Context())
	fmt.Println("now", now, time.Now(), err)
	for _, x := range ts {
		g, _ := q.Get(t.Context(), x.ID)
		fmt.Printf("%s %s %s att=%d crashes=%d node=%s created=%v runat=%v started=%v\n   %+v\n", x.Kind, g.Payload, x.State, x.Attempt, x.Crashes, x.Node, x.CreatedAt, x.RunAt, x.StartedAt, g.Errors)
	}
	ns, _ := q.Store().Nodes(t.Context())
	fmt.Printf("%+v\n", ns)
	cs, _ := q.Counts(t.Context())
	fmt.Printf("%+v\n", cs)
}
