//go:build unix

package wake_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// programVar names the environment variable that makes the test binary one of
// the programs in process_program_test.go.
const programVar = "WAKE_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if name := os.Getenv(programVar); name != "" {
		program, ok := programs[name]
		if !ok {
			panic(fmt.Sprintf("there is no test program %q", name))
		}
		program()
		return
	}
	goleak.VerifyTestMain(m)
}
