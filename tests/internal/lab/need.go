// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"os"
	"os/exec"
	"testing"
)

// ciVariable is set by .ci/run. What a contributor's machine may lack has to be there then.
const ciVariable = "PORTCULLIS_CI"

// NeedProgram returns the path of a program that the test runs. Where it is missing the test is skipped, or fails in
// continuous integration.
func NeedProgram(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil { // a user's PATH has no sbin
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	switch {
	case err == nil:
	case os.Getenv(ciVariable) != "":
		t.Fatalf("there is no %s: \"make deps\" installs it", name)
	default:
		t.Skipf("there is no %s: \"make deps\" installs it", name)
	}
	return path
}
