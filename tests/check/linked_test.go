// SPDX-License-Identifier: Apache-2.0

package check

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Every command starts the program anew, and would start with each of these: portcullisd has them in its place.
func TestHeavyLibrariesAreNotLinked(t *testing.T) {
	linked := func(program string) []string {
		list := exec.Command("go", "list", "-deps", "./cmd/"+program)
		list.Dir = root
		out, err := list.Output()
		if err != nil {
			t.Fatalf("%s: %v", list, err)
		}
		return strings.Fields(string(out))
	}
	small, large := linked("portcullis"), linked("portcullisd")
	for _, heavy := range []string{
		"charm.land/bubbletea", "github.com/prometheus/client_golang", "go.etcd.io/etcd/client", "go.uber.org/zap",
		"google.golang.org/grpc", "google.golang.org/protobuf",
	} {
		within := func(name string) bool { return strings.HasPrefix(name, heavy+"/") }
		if i := slices.IndexFunc(small, within); i >= 0 {
			t.Errorf("portcullis has %s linked into it", small[i])
		}
		if !slices.ContainsFunc(large, within) {
			t.Errorf("portcullisd has no %s linked into it: take it off this list", heavy)
		}
	}
}
