// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

func TestUsage(t *testing.T) {
	h := newHost(t)
	h.runs("")
	for _, c := range []struct{ args, hint string }{
		{"", "--help"},
		{"bogus", `unknown command "bogus"`},
		{"statsu", "did you mean status?"},
		{"trust 192.0.2.1", `"trust: [203.0.113.9]"`},
		{"unblock 192.0.2.1", "did you mean unban?"},
		{"status now", `unexpected argument "now"`},
		{"flows bogus", `unexpected argument "bogus"`},
		{"up --bogus", "portcullis up --help"},
		{"up --mode fast", "auto, native, generic or tc"},
		{"status -o xml", "table or json"},
		{"log bogus", `unexpected argument "bogus"`},
		{"flows --limit many", "--limit"},
		{"flows --limit -1", "--limit"},
		{"help bogus", `no help on "bogus"`},
	} {
		h.types(2, strings.Fields(c.args)...)
		h.complains(c.hint)
		if h.stdout != "" || strings.Count(h.stderr, "\n") != 1 {
			t.Errorf("%q prints more than a line: %s%s", c.args, h.stdout, h.stderr)
		}
	}
}

func TestHelpListsTheExitCodes(t *testing.T) {
	h := newHost(t)
	h.types(0, "help")
	h.says(fmt.Sprintf("\nExit codes:\n  0  done, also if nothing had to be done\n  %d  refused or failed\n  %d  wrong command line\n  %d  not running\n",
		exitFailed, exitUsage, exitNotRunning))
}

func TestNotRunning(t *testing.T) {
	h := newHost(t)
	h.types(3, "log", "-f")
	h.complains("portcullis: not running")
	h.types(3, "open", "http")
	h.complains(`nothing was changed; run "portcullis up" first`)
	h.types(3, "status", "-o", "json")
	var v map[string]bool
	h.json(&v)
	if running, ok := v["running"]; running || !ok || len(v) != 1 {
		t.Errorf("JSON: %v", v)
	}
}

func TestStatusCheck(t *testing.T) {
	h := newHost(t)
	h.types(3, "status", "--check")
	h.runs("")
	h.Checks = []loader.LedgerCheck{{Interface: "eth0", Counter: "rx_packets", Device: 107, Ledger: 100, Merged: 7, Agrees: true}}
	h.types(0, "status", "--check")
	h.says("INTERFACE  DEVICE  COUNTED  DIFFERENCE  NOTE\n", "eth0       107     100      0           7 frames were merged into others\n", "\nadds up\n")
	with := h.Checks
	h.Checks = []loader.LedgerCheck{{Interface: "eth0", Counter: "rx_packets", Agrees: true}}
	h.types(0, "status", "--check")
	h.says("\nno traffic in this moment: nothing was compared\n")
	if strings.Contains(h.stdout, "adds up") {
		t.Errorf("nothing was compared, and it says %q", h.stdout)
	}
	h.Checks = append(with, loader.LedgerCheck{Interface: "eth1", Counter: "rx_packets", Device: 20, Ledger: 15, Difference: 5},
		loader.LedgerCheck{Interface: "eth2", Counter: "rx_packets", Device: 20, Ledger: 22, Difference: -2})
	h.types(1, "status", "--check")
	h.complains("eth1: the ledger has 15 packets where the device (rx_packets) has received 20 frames: 5 came past the filter",
		"eth2: the ledger has 22 packets where the device (rx_packets) has received 20 frames: 2 are counted twice")
	var v ledgerView
	h.types(1, "status", "--check", "-o", "json")
	h.json(&v)
	if v.Agrees || len(v.Interfaces) != 3 || v.Interfaces[1].Difference != 5 {
		t.Errorf("JSON: %+v", v)
	}
	const unfiltered = "eth3 was deleted and re-created, and is not filtered: run \"portcullis up eth3\""
	h.Checks = []loader.LedgerCheck{{Interface: "eth3", Unfiltered: unfiltered}}
	h.types(1, "status", "--check")
	h.complains(unfiltered)
	if strings.Contains(h.stderr, "counted twice") {
		t.Errorf("stderr %q", h.stderr)
	}
}

func TestWithoutRoot(t *testing.T) {
	h := newHost(t)
	h.runs("")
	h.privileges = errPrivileges
	for _, args := range []string{"version", "version -o json", "help", "help up", "--help", "up --help", "--version", "completion bash"} {
		h.types(0, strings.Fields(args)...)
		if h.stdout == "" {
			t.Errorf("%q prints nothing", args)
		}
	}
}

func TestRefusalByTheKernelSaysWhatIsNeeded(t *testing.T) {
	h := newHost(t)
	h.Fail = fmt.Errorf("eth0: attach: %w", unix.EPERM)
	h.types(1, "up", "--config", h.writes(""))
	h.complains("portcullis: eth0: attach: operation not permitted\n", "portcullis: "+errPrivileges.Error())
}

func TestStatus(t *testing.T) {
	h := newHost(t)
	path := h.runs("flows: {max: 1024}\nicmp: [echo-request]\nopen: [ssh, '22/tcp from 192.0.2.0/24']\n")
	h.Counters = []loader.CounterStatus{{Verdict: "drop", Reason: "closed port", Packets: 12}, {Verdict: "pass", Reason: "established"},
		{Verdict: "seen", Reason: "flows evicted", Packets: 5}, {Verdict: "seen", Reason: "invalid state", Packets: 4}}
	h.types(0, "open", "http", "--runtime")
	h.types(0, "status")
	h.says("policy: "+path+"\n", "input drop, forward drop, icmp [echo-request], invalid log, flows max 1024\n", "eth0       native XDP  TCX\n",
		"ssh                       7\n", "22/tcp from 192.0.2.0/24  7\n", "http                      7        runtime\n",
		"drop     closed port  12\n", "\n\nINVALID KIND   PACKETS\ninvalid state  4\n", "flows: 0 assured, 0 others, of 1024\n")
	if strings.Contains(h.stdout, "established") || strings.Contains(h.stdout, "flows evicted") {
		t.Errorf("a counter of 0, or one of no packets, is in the table:\n%s", h.stdout)
	}
	if h.stderr != "" {
		t.Errorf("warns of %q", h.stderr)
	}
	var v firewall.Status
	h.types(0, "-o", "json", "status")
	h.json(&v)
	if !v.Running || v.BuiltIn || len(v.Rules) != 3 || !v.Rules[2].Runtime || len(v.Counters) != 4 || v.Settings.Get("input") != "drop" {
		t.Errorf("JSON: %+v", v)
	}
	h.Traffic = []loader.Traffic{{Of: loader.OfInterface, Interface: "eth0", Passed: maps.Tally{Packets: 30}, Dropped: maps.Tally{Packets: 12},
		Counters: []loader.TrafficCounter{{Verdict: "drop", Reason: "closed port", Tally: maps.Tally{Packets: 12}}}}}
	h.types(0, "status")
	h.says("INTERFACE  INGRESS     EGRESS  PASSED  DROPPED\n", "eth0       native XDP  TCX     30      12\n")
	h.FlowList = []loader.Flow{flow("tcp", "192.0.2.1:1", "192.0.2.2:2", true), flow("udp", "192.0.2.1:1", "192.0.2.2:2", true),
		flow("udp", "192.0.2.1:3", "192.0.2.2:2", false)}
	h.FlowList[1].Assured = false
	h.Table.Evicted = 5
	h.types(0, "status")
	h.says("flows: 1 assured, 2 others, of 1024; 5 evicted\n")
	if h.stderr != "" {
		t.Errorf("evictions warn of %q", h.stderr)
	}
	h.Table.Full = 592
	h.types(0, "status")
	h.says("flows: 1 assured, 2 others, of 1024; 5 evicted; 592 refused\n")
	h.complains("portcullis: warning: the flow table, for 1024 flows, had no room for 592 packets that begin a flow")
	h.types(0, "status", "-o", "json")
	h.json(&v)
	want := loader.FlowsStatus{Assured: 1, Answered: 2, Pending: 1, Max: 1024, Full: 592, Evicted: 5}
	if v.Flows != want || len(v.Warnings) != 1 {
		t.Errorf("JSON: %+v and %q, want %+v", v.Flows, v.Warnings, want)
	}
	h.Counters, h.Running.Open = nil, nil
	h.types(0, "status", "-o", "json")
}

// What closed rules let in is shown, or rows do not add up to what has passed.
func TestStatusShowsClosedRules(t *testing.T) {
	h := newHost(t)
	h.runs("open: [ssh]\n")
	h.types(0, "status")
	if strings.Contains(h.stdout, "rules closed since") {
		t.Errorf("none was closed, and it says %s", h.stdout)
	}
	h.ClosedRules = maps.Tally{Packets: 12, Bytes: 720}
	h.types(0, "status")
	h.says("\npass     rules closed since  12\n")
	h.types(0, "status", "-o", "json")
	var v firewall.Status
	if h.json(&v); v.Closed != h.ClosedRules {
		t.Errorf("JSON: %+v", v.Closed)
	}
}

func TestStatusTellsOfPacketsPastTheFilter(t *testing.T) {
	h := newHost(t)
	h.runs("open: [http]\n")
	h.Past = []loader.Interface{{Name: "eth0", Mode: loader.ModeGeneric}}
	h.types(0, "status")
	h.complains("eth0: packets reach this host past the filter", `"portcullis up eth0 --mode tc"`)
	h.Past = []loader.Interface{{Name: "eth0", Mode: loader.ModeTC}}
	h.types(0, "status")
	h.complains("eth0: packets reach this host past the filter", `"portcullis doctor eth0"`)
	h.Past, h.PastErr = nil, fs.ErrPermission
	h.types(0, "status")
	h.PastErr = errors.New("it is dark")
	h.types(1, "status")
}

func TestStatusTellsWhenTheFileIsAnother(t *testing.T) {
	h := newHost(t)
	path := h.runs("open: [ssh]\n")
	os.WriteFile(path, []byte("open: [ssh, http]\nicmp: drop\n"), 0o644)
	h.types(0, "status")
	h.complains(path+` differs from what is in force in 2 places: "portcullis diff" shows them`, `"portcullis save" overwrites it`)
	os.WriteFile(path, []byte("open: [htttp]\n"), 0o644)
	h.types(0, "status")
	h.complains("no longer good", path+":1:8")
	os.Remove(path)
	h.types(0, "status")
	h.says("policy: from " + path + `, which is gone; "portcullis save" writes it again`)
	h.types(0, "status", "-o", "json")
	var v firewall.Status
	h.json(&v)
	if v.BuiltIn || !v.FileGone {
		t.Errorf("JSON: %+v", v)
	}
	h.types(0, "save")
	h.types(0, "status")
	h.says("policy: " + path + "\n")
}

func TestStatusTellsWhenTheFileNamesOtherInterfaces(t *testing.T) {
	h := newHost(t)
	h.runs("interfaces: [br1, br0]\n")
	h.types(0, "status")
	h.complains(`eth0 is filtered, but the policy file does not name it: after a reboot it is open; "portcullis save" adds it`,
		`the policy file names br0, which is not filtered: "portcullis up br0"`)
	h.Running.Interfaces = []string{"br0", "br1"}
	h.types(0, "status")
	if h.stderr != "" {
		t.Errorf("warns of %q", h.stderr)
	}
	// It looks at all that is filtered, and at what the file names.
	h.Running.Interfaces = []string{"eth0"}
	var v doctorView
	h.types(1, "doctor", "-o", "json")
	h.json(&v)
	if !slices.Equal(v.Interfaces, []string{"br0", "br1", "eth0"}) {
		t.Errorf("doctor looks at %q", v.Interfaces)
	}
}

func TestFlows(t *testing.T) {
	h := newHost(t)
	h.runs("")
	h.types(0, "flows")
	h.says("no flows\n")
	h.types(0, "flows", "-o", "json")
	h.says("[]")
	h.FlowList = []loader.Flow{
		flow("gre", "192.0.2.1:0", "192.0.2.2:0", true),
		flow("icmp", "192.0.2.1:77", "192.0.2.2:8", true),
		flow("tcp", "192.0.2.1:40000", "192.0.2.2:443", true),
		flow("tcp", "[2001:db8::1]:40000", "[2001:db8::2]:443", true),
		flow("udp", "192.0.2.1:5000", "192.0.2.2:53", false),
	}
	h.types(0, "flows")
	const want = `PROTOCOL  LOCAL                REMOTE             STATE             AGE    EXPIRES
gre       192.0.2.1            192.0.2.2          gre               1m30s  5d
icmp      192.0.2.1:77         192.0.2.2          icmp              1m30s  5d
tcp       192.0.2.1:40000      192.0.2.2:443      tcp               1m30s  5d
tcp       [2001:db8::1]:40000  [2001:db8::2]:443  tcp               1m30s  5d
udp       192.0.2.1:5000       192.0.2.2:53       udp (unanswered)  1m30s  5d
`
	if h.stdout != want {
		t.Errorf("got\n%swant\n%s", h.stdout, want)
	}
	h.types(0, "flows", "--limit", "2")
	h.says("and 3 more\n")
	var v []flowView
	h.types(0, "flows", "-o", "json", "--limit", "3")
	h.json(&v)
	if len(v) != 3 || v[2].Protocol != "tcp" || v[2].LocalPort != 40000 || v[2].Age != 90 || !v[2].Answered || !v[2].Assured {
		t.Errorf("JSON: %+v", v)
	}
	h.types(0, "flows", "flush")
	h.says("removed 5 flows\n")
	h.types(0, "flows", "flush", "-o", "json")
	h.types(0, "flows", "sweep")
	h.says("removed 3 expired flows; 5 live\n")
	h.types(0, "flows", "sweep", "-o", "json")
	h.Fail = errors.New("no")
	h.types(1, "flows", "flush")
	h.types(1, "flows", "sweep")
}

func TestCompletion(t *testing.T) {
	h := newHost(t)
	complete := func(want string, args ...string) {
		t.Helper()
		var stdout strings.Builder
		e := h.env()
		e.stdout, e.stderr = &stdout, new(strings.Builder)
		if code := run(e, append([]string{"__completeNoDesc"}, args...)); code != 0 {
			t.Fatalf("completion exits with %d", code)
		}
		if got, _, _ := strings.Cut(stdout.String(), ":"); got != want {
			t.Errorf("%q completes to %q, want %q", args, got, want)
		}
	}
	complete("", "close", "")
	h.runs("open: [ssh, http]")
	complete("ssh\nhttp\n", "close", "")
	complete("http\n", "close", "ssh", "")
	complete("eth0\n", "down", "")
	complete("table\njson\n", "status", "-o", "")
	complete("auto\nnative\ngeneric\ntc\n", "up", "--mode", "")
	complete("up\nunban\n", "u")
	complete("", "unban", "")
	h.types(0, "ban", "203.0.113.7", "198.51.100.8")
	complete("203.0.113.7\n", "unban", "203")
	complete("203.0.113.7\n198.51.100.8\n", "bans", "")
	complete("10m\n1h\n1d\n7d\n", "ban", "--for", "")
	complete("", "ban", "")
	complete("yaml\nyml\n", "apply", "")
	complete("", "diff", "one.yaml", "")
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, unix.ENOSPC }

func TestOutputThatCannotBeWrittenIsAFailure(t *testing.T) {
	var stderr strings.Builder
	e := newHost(t).env()
	e.stdout, e.stderr = full{}, &stderr
	if code := run(e, []string{"version"}); code != 1 || !strings.Contains(stderr.String(), "write the output") {
		t.Errorf("exits with %d: %s", code, stderr.String())
	}
}

func TestPinPathComesFromTheEnvironmentOrAFlag(t *testing.T) {
	h := newHost(t)
	e := h.env()
	e.stdout, e.stderr = new(strings.Builder), new(strings.Builder)
	e.getenv = func(name string) string {
		if name == loader.PinPathVariable {
			return "/sys/fs/bpf/from-env"
		}
		return ""
	}
	path := h.writes("")
	for _, args := range [][]string{{"up", "--config", path}, {"up", "--config", path, "--pin-path", "/sys/fs/bpf/flag"}} {
		if code := run(e, args); code != 0 {
			t.Fatalf("%q exits with %d", args, code)
		}
	}
	if h.Ups[0].PinPath != "/sys/fs/bpf/from-env" || h.Ups[1].PinPath != "/sys/fs/bpf/flag" {
		t.Errorf("pin paths %q and %q", h.Ups[0].PinPath, h.Ups[1].PinPath)
	}
}
