package wake

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// uniqueID makes the id of an operation one that no other has: /a-b and /a/b
// would share theirs.
func (h *host) uniqueID(id string) string {
	h.ids[id]++
	if n := h.ids[id]; n > 1 {
		return h.uniqueID(id + "-" + strconv.Itoa(n))
	}
	return id
}

// checkSchemes panics if an operation names a security scheme that the
// OpenAPI document does not describe.
func (h *host) checkSchemes(op *operation) {
	for _, requirement := range op.Operation.Security {
		for name := range requirement {
			if _, ok := h.cfg.schemes[name]; !ok {
				panic(fmt.Sprintf("wake: %s %s needs the security scheme %q; New was given %q; declare it with wake.SecurityScheme",
					op.Method, op.Path, name, slices.Sorted(maps.Keys(h.cfg.schemes))))
			}
		}
	}
}

// checkInput panics if an input has fields that Huma would leave at zero
// without a word: those of an embedded struct whose type is not exported.
func checkInput(t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return // Huma says what it needs
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.Anonymous {
			continue
		}
		if !f.IsExported() {
			panic(fmt.Sprintf("the input %v embeds %v, which is not exported, so its fields would never be bound; export the type", t, f.Type))
		}
		checkInput(f.Type)
	}
}

// checkPath panics if an input binds a path parameter that the path does not
// have: every request would be refused. Those that no field binds, such as one
// of a router's prefix, are added to the document.
func checkPath(op *huma.Operation) {
	var names []string
	for segment := range strings.SplitSeq(op.Path, "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok && name != "$}" {
			names = append(names, strings.TrimSuffix(strings.TrimSuffix(name, "}"), "..."))
		}
	}
	for _, p := range op.Parameters {
		if p.In != "path" {
			continue
		}
		i := slices.Index(names, p.Name)
		if i < 0 {
			panic(fmt.Sprintf("the input binds the path parameter %q, which the path does not have", p.Name))
		}
		names = slices.Delete(names, i, i+1)
	}
	for _, name := range names {
		op.Parameters = append(op.Parameters, &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}})
	}
}
