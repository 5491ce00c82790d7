package wake

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
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
