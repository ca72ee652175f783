// SPDX-License-Identifier: Apache-2.0

package check

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Nobody shall find a server on his machine for having typed "make test". What tests need besides, "make deps" installs.
func TestOnlyDepsInstallsAServer(t *testing.T) {
	packages := func(set string) []string {
		out, err := exec.Command(root+"/packaging/deps.sh", "list", set).Output()
		if err != nil {
			t.Fatalf("packaging/deps.sh list %s: %v", set, err)
		}
		return strings.Fields(string(out))
	}
	servers := []string{"openssh-server", "fail2ban", "crowdsec", "prometheus", "etcd-server"}
	all := packages("all")
	for _, server := range servers {
		if !slices.Contains(all, server) {
			t.Errorf("make deps installs no %s: %q", server, all)
		}
	}
	for _, set := range []string{"build", "demo", "test", "vm"} {
		for _, name := range packages(set) {
			switch {
			case slices.Contains(servers, name):
				t.Errorf("%s is among what \"make %s\" installs", name, set)
			case set == "test" && !slices.Contains(all, name):
				t.Errorf("make deps does not install %s, which make test needs", name)
			}
		}
	}

	makefile, err := os.ReadFile(root + "/Makefile")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^test:.*$`).FindString(string(makefile))
	if !strings.Contains(line, " deps-test ") || strings.Contains(line, "deps-all") {
		t.Errorf("make test installs another set than test: %q", line)
	}
}
