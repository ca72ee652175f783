// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
)

func TestUpTakesInterfacesFromArgumentsFileRouteInThisOrder(t *testing.T) {
	for _, c := range []struct {
		name string
		text string
		args []string
		want []string
	}{
		{"arguments", "interfaces: [eth1]", []string{"eth3", "eth2", "eth3"}, []string{"eth2", "eth3"}},
		{"the file", "interfaces: [eth1, eth5]", nil, []string{"eth1", "eth5"}},
		{"the default route", "open: [ssh]", nil, []string{"eth0"}},
	} {
		h := newHost(t)
		path := h.writes(c.text)
		h.types(0, append([]string{"--config", path, "up"}, c.args...)...)
		if got := h.Ups[0].Interfaces; !slices.Equal(got, c.want) {
			t.Errorf("%s: interfaces %q, want %q", c.name, got, c.want)
		}
		if h.Ups[0].Config != path || h.Ups[0].Mode != loader.ModeAuto || h.Ups[0].PinPath != loader.DefaultPinPath {
			t.Errorf("%s: options %+v", c.name, h.Ups[0])
		}
	}
}

func TestUpWithoutFileOrRouteSaysWhatToDo(t *testing.T) {
	h := newHost(t)
	h.Route = ""
	h.types(1, "up", "--config", h.writes(""))
	h.complains("there is no default route")
}

func TestUpReports(t *testing.T) {
	h := newHost(t)
	path := h.writes("open: [ssh, http]")
	h.types(0, "up", "eth0", "--config", path, "--mode", "native")
	h.says("eth0: filtering (native XDP, egress TCX)\n", "policy: "+path+": open: ssh; http\n")
	h.complains("portcullis: warning: something to know")
	if strings.Contains(h.stdout, "built in") {
		t.Error("a policy with a file is called built in")
	}
	var v firewall.UpReport
	h.types(0, "up", "--config", path, "-o", "json")
	h.json(&v)
	if !v.Updated || v.BuiltIn || v.Config != path || len(v.Rules) != 2 || len(v.Interfaces) != 1 || len(v.Warnings) != 1 {
		t.Errorf("JSON of up: %+v", v)
	}
}

func TestUpAppliesTheFileOfTheRunningFilterAnew(t *testing.T) {
	h := newHost(t)
	h.Route = ""
	path := h.runs("open: [http]")
	h.types(0, "up")
	if o := h.Ups[0]; o.Config != path || !slices.Equal(o.Interfaces, []string{"eth0"}) || len(o.Policy.Open) != 1 {
		t.Errorf("options %+v", o)
	}
	// A file that is gone must not turn into the built-in policy.
	os.Remove(path)
	h.types(1, "up")
	h.complains(path)
}

func TestBuiltInPolicyKeepsSSHOpenAndSaysSo(t *testing.T) {
	if _, err := os.Stat(firewall.DefaultConfig); err == nil {
		t.Skip("this machine has a policy file")
	}
	for _, c := range []struct {
		ports []uint16
		want  []string
		says  string
	}{
		{[]uint16{22}, []string{"ssh"}, "open: ssh, because an sshd listens on port 22"},
		{[]uint16{22, 2222}, []string{"ssh", "2222/tcp"}, "open: 2222/tcp, because an sshd listens on port 2222"},
		{nil, nil, "no port is open: no sshd listens here"},
	} {
		h := newHost(t)
		h.SSHD = c.ports
		h.types(0, "up")
		h.says("built in, as there is no "+firewall.DefaultConfig, c.says, `next: "portcullis open http"`)
		h.opens(c.want...)
		h.types(0, "up", "-o", "json")
		h.says(`"built_in": true`)
	}
}

func TestUpRefusesBadFiles(t *testing.T) {
	h := newHost(t)
	h.types(1, "up", "--config", filepath.Join(t.TempDir(), "none.yaml"))
	h.complains("none.yaml: no such file")
	path := h.writes("input: block\nopen:\n  - htttp\n")
	h.types(1, "up", "--config", path)
	h.complains("portcullis: "+path+":1:8: ", "portcullis: "+path+":3:5: ")
	if len(h.Ups) != 0 {
		t.Error("a bad file is put in force")
	}
}

func TestUpPassesErrorsOn(t *testing.T) {
	h := newHost(t)
	h.Fail = errors.New("eth0: no such interface")
	h.types(1, "up", "--config", h.writes(""))
	if h.stderr != "portcullis: eth0: no such interface\n" || h.stdout != "" {
		t.Errorf("stderr %q, stdout %q", h.stderr, h.stdout)
	}
}

func TestGuard(t *testing.T) {
	const session = "203.0.113.5 50000 192.0.2.1 22"
	for _, c := range []struct {
		name, text, session string
		refused             bool
	}{
		{"closed", "open: [http]", session, true},
		{"open to all", "open: [ssh]", session, false},
		{"open to the client", `open: ["22/tcp from 203.0.113.0/24"]`, session, false},
		{"open to another", `open: ["22/tcp from 203.0.113.6"]`, session, true},
		{"another protocol", "open: [22/udp]", session, true},
		{"all input accepted", "input: accept", session, false},
		{"no session", "", "", false},
		{"over loopback", "", "127.0.0.1 1 127.0.0.1 22", false},
		{"another port", "open: [ssh]", "203.0.113.5 50000 192.0.2.1 2222", true},
		{"IPv6 with a zone", `open: ["22/tcp from fe80::/10"]`, "fe80::1%eth0 50000 fe80::2%eth0 22", false},
		{"not readable", "", "UNKNOWN 1 2 3", false},
	} {
		h := newHost(t)
		h.session = c.session
		path := h.writes(c.text)
		if !c.refused {
			h.types(0, "up", "--config", path)
			continue
		}
		h.types(1, "up", "--config", path)
		if len(h.Ups) != 0 {
			t.Errorf("%s: up is not refused", c.name)
		}
		h.types(0, "up", "--config", path, "--force")
	}
	h := newHost(t)
	h.session = session
	path := h.writes("")
	h.types(1, "up", "--config", path)
	want := `portcullis: this session (203.0.113.5 to port 22) could not be opened again: add "22/tcp from 203.0.113.5" to ` +
		path + ", or use --force\n"
	if h.stderr != want {
		t.Errorf("got %q, want %q", h.stderr, want)
	}
}

func TestGuardKnowsWhoIsHere(t *testing.T) {
	const session = "203.0.113.5 50000 192.0.2.1 22"
	connection := func(remote string) host.Connection {
		return host.Connection{Local: netip.MustParseAddrPort("192.0.2.1:22"), Remote: netip.MustParseAddrPort(remote)}
	}
	for _, c := range []struct {
		name, text string
		clients    []host.Connection
		arrivals   []string
		refused    bool
	}{
		{"the session lives", "open: [22/tcp from 203.0.113.5]", []host.Connection{connection("203.0.113.5:50000"), connection("198.51.100.7:40000")}, nil, false},
		{"it has ended, and another one is here", "open: [22/tcp from 203.0.113.5]", []host.Connection{connection("198.51.100.7:40000")}, nil, true},
		{"it has ended, and the other one survives", "open: [22/tcp from 198.51.100.7]", []host.Connection{connection("198.51.100.7:40000")}, nil, false},
		{"one of several does not survive", "open: [22/tcp from 198.51.100.7]", []host.Connection{connection("198.51.100.7:40000"), connection("198.51.100.8:40000")}, nil, true},
		{"none is here", "open: [22/tcp from 198.51.100.7]", nil, nil, true},
		{"it comes by an interface that is not filtered", "", nil, []string{"eth1"}, false},
		{"it may come by one that is", "", nil, []string{"eth1", "eth0"}, true},
	} {
		h := newHost(t)
		h.session, h.SSHD, h.Clients, h.ArrivalNames = session, []uint16{22}, c.clients, c.arrivals
		code := 0
		if c.refused {
			code = 1
		}
		t.Log(c.name)
		h.types(code, "up", "--config", h.writes(c.text))
	}
}

func TestDown(t *testing.T) {
	h := newHost(t)
	h.types(3, "down")
	h.runs("")
	h.types(0, "down")
	h.says("eth0: no longer filtered", "unprotected")
	h.types(0, "down", "-o", "json")
	h.Running.Interfaces = []string{"eth0", "eth1"}
	h.types(0, "down", "eth1")
	h.says("eth1: no longer filtered: every port is open\n", "still filtered: eth0\n")
	if strings.Contains(h.stdout, "unprotected") {
		t.Error("a host with a filtered interface is called unprotected")
	}
	h.Running.Interfaces = []string{"br0", "eth1", "eth5"}
	h.Absent, h.Behind = []string{"eth5"}, map[string]string{"eth1": "br0"}
	h.types(0, "down", "eth1")
	h.says("eth1: no longer filtered by itself; what comes in for it still is, on br0\n", "still filtered: br0\n",
		"still to be filtered when it appears: eth5\n")
	h.types(0, "down", "eth5")
	h.says("eth5 (gone): no longer waited for\n")
}

// A command may run in any service, and so with any directory for state.
func TestCommandsDoNotTrustStateDirectory(t *testing.T) {
	dir := t.TempDir()
	h := newHost(t)
	h.runs("open: [ssh]\n")
	h.stateDir = ""
	h.variables = map[string]string{stateVariable: dir}
	for _, args := range [][]string{{"up"}, {"open", "http"}, {"close", "http"}, {"apply"}, {"save"}} {
		h.types(0, append(args, "--pin-path", "/sys/fs/bpf/another")...)
	}
	if kept, err := os.ReadDir(dir); err != nil || len(kept) > 0 {
		t.Errorf("the directory of another service has %v, %v", kept, err)
	}
}

// One that is not there has no programs to tell of, and is not filtered.
func TestFilteringText(t *testing.T) {
	for _, c := range []struct {
		of   loader.Interface
		want string
	}{
		{loader.Interface{Name: "eth0", Mode: loader.ModeTC, Egress: "tcx", Present: true}, "eth0: filtering (TC, egress TCX)"},
		{loader.Interface{Name: "eth1", Mode: loader.ModeTC, Egress: "tcx"}, "eth1: gone, and not filtered"},
		{loader.Interface{Name: "eth2", Mode: loader.ModeAuto}, "eth2: not there, and not filtered"},
	} {
		if got := filteringText(c.of); got != c.want {
			t.Errorf("%+v: %s", c.of, got)
		}
	}
}
