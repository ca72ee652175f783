// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
)

// Commands that a command names are about the same filter and file.
func TestCommandsThatAreNamedCarryTheFlags(t *testing.T) {
	const pin = "/sys/fs/bpf/other"
	var h *fakeHost
	var path string
	named := regexp.MustCompile(`\\?"portcullis ([a-z-][^"\\\n]*)`)
	hints := 0
	types := func(code int, args ...string) {
		t.Helper()
		h.types(code, append(args, "--pin-path", pin, "--config", path)...)
		for _, found := range named.FindAllStringSubmatch(h.stdout+h.stderr, -1) {
			hints++
			line := found[1]
			if strings.HasSuffix(line, "--help") {
				continue
			}
			if !strings.HasPrefix(line, "--pin-path "+pin+" ") || strings.Count(line, " --config "+path) != 1 {
				t.Errorf("%q names %q", args, found[0])
			}
		}
	}
	run := func(text string) {
		h = newHost(t)
		path = h.runs(text)
	}

	h = newHost(t)
	path = h.writes("open: [ssh]\n")
	types(3, "open", "http")
	types(3, "apply")
	types(3, "confirm")
	types(2, "deny", "http")
	os.WriteFile(path, []byte("open: [ssh]\nflows: {max: 2048}\n"), 0o600)
	types(0, "up")
	h.Table.Max = 1024

	for _, output := range [][]string{nil, {"-o", "json"}} {
		run("open: [ssh]\n")
		h.Others = []host.Interface{{Name: "eth1"}}
		h.Past = []loader.Interface{{Name: "eth0", Mode: loader.ModeGeneric}}
		h.Table.Max, h.Table.Full = 1024, 5
		types(0, append([]string{"status"}, output...)...)
		types(0, append([]string{"apply", h.writes("interfaces: [eth1]\nopen: [ssh, http]\nflows: {max: 4096}\n")}, output...)...)
		types(0, append([]string{"diff", h.writes("open: [ssh]\nflows: {max: 4096}\n")}, output...)...)
		os.WriteFile(path, []byte("interfaces: [br0]\nopen: [http]\nicmp: drop\n"), 0o600)
		types(0, append([]string{"status"}, output...)...)
		types(anyCode, append([]string{"doctor"}, output...)...)
		types(0, append([]string{"audit"}, output...)...)
		os.Remove(path)
		types(0, append([]string{"status"}, output...)...)
		types(0, append([]string{"save"}, output...)...)
		types(0, append([]string{"open", "8080/tcp", "--runtime"}, output...)...)
		types(0, append([]string{"close", "8080/tcp", "--runtime"}, output...)...)

		h.session = "203.0.113.5 50000 192.0.2.1 22"
		types(1, append([]string{"close", "ssh"}, output...)...)
		types(0, append([]string{"try", h.writes("open: [ssh]\n")}, output...)...)
		types(1, append([]string{"open", "https"}, output...)...)
		types(0, append([]string{"revert"}, output...)...)
		h.OpenErr = loader.ErrOlderSchema
		types(1, append([]string{"status"}, output...)...)
	}
	if hints < 25 {
		t.Errorf("only %d commands were named", hints)
	}
}

// Once it is down, a filter has forgotten its file.
func TestUpAfterDownNamesTheFile(t *testing.T) {
	h := newHost(t)
	path := h.runs("open: [ssh]\nflows: {max: 2048}\n")
	h.Table.Max, h.Table.Full = 1024, 5
	for _, command := range []string{"status", "apply", "doctor"} {
		h.types(map[string]int{"doctor": anyCode}[command], command)
		if text := h.stdout + h.stderr; !strings.Contains(text, "portcullis up --config "+path) {
			t.Errorf("%s: %s", command, text)
		}
	}
	h.runs("open: [ssh]\nflows: {max: 2048}\n")
	h.File = firewall.DefaultConfig
	h.types(0, "status")
	if strings.Contains(h.stderr, "--config") {
		t.Errorf("names the file that is found anyway: %s", h.stderr)
	}
}
