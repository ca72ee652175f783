// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// What portcullisd does gets all flags of this command, and nothing is started that they forbid.
func TestPortcullisdGetsTheFlags(t *testing.T) {
	h := newHost(t)
	var argv []string
	h.daemon = func(args []string) error {
		argv = args
		return nil
	}
	h.types(0, "--config", "/etc/other.yaml", "run", "eth0", "wg*", "--mode", "tc", "--metrics", "127.0.0.1:9734", "--metrics-anywhere")
	text := strings.Join(argv, " ")
	for _, want := range []string{"portcullisd run --caller " + version + " --pin-path /", " --config /etc/other.yaml ", " --mode tc ", " --metrics 127.0.0.1:9734 ", " --metrics-anywhere ", " -- eth0 wg*"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %q", want, text)
		}
	}
	h.types(0, "run", "--fleet", "/etc/portcullis/fleet.yaml", "eth0")
	if text := strings.Join(argv, " "); !strings.HasSuffix(text, " --mode auto --fleet /etc/portcullis/fleet.yaml -- eth0") {
		t.Errorf("run --fleet: %q", text)
	}
	h.types(0, "fleet", "revoke", "--to", "dir:/srv", "--key=a b.key", "--host", "h1", "--host", "h2", "--output=json", "old.pub")
	if text := strings.Join(argv, "|"); !strings.Contains(text, "portcullisd|fleet|--caller|") ||
		!strings.HasSuffix(text, "|--output=json|revoke|--host=h1|--host=h2|--key=a b.key|--to=dir:/srv|--|old.pub") {
		t.Errorf("fleet revoke: %q", text)
	}
	h.types(3, "top")
	h.runs("")
	h.types(0, "top", "--once", "--lock-timeout", "3s")
	if text := strings.Join(argv, " "); argv[1] != "top" || !strings.Contains(text, "--output table --once") || !strings.Contains(text, "--lock-timeout 3s") ||
		slices.Contains(argv, "--config") {
		t.Errorf("top: %q", text)
	}
	argv = nil
	h.types(2, "fleet", "publish", "--to", "dir:/srv", "--key", "fleet.key", "policy.yaml")
	h.complains("--group is missing")
	h.types(2, "fleet", "publish", "--to", "dir:/srv", "--key", "fleet.key", "--group", "web")
	h.types(2, "fleet", "sign")
	h.types(2, "run", "--fleet", "")
	h.types(2, "run", "--metrics-anywhere")
	h.privileges = errPrivileges
	h.types(1, "top")
	h.types(1, "run", "--metrics", "127.0.0.1:9734")
	if argv != nil {
		t.Errorf("%q was started", argv)
	}
	h.privileges = nil
	h.daemon = func([]string) error { return errors.New("it is missing") }
	h.types(1, "top")
	h.complains("it is missing")
}
