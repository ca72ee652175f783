// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

func TestApplyOfTheFile(t *testing.T) {
	h := newHost(t)
	path := h.runs("open: [ssh]\n")
	h.types(0, "apply")
	h.says("nothing to do: what " + path + " says is in force\n")
	if len(h.Ups) != 0 {
		t.Error("what is in force is put in force")
	}
	os.WriteFile(path, []byte("open: [ssh, http]\ninvalid: drop\n"), 0o644)
	h.types(0, "diff")
	h.says("+ open http\n", "~ invalid: log -> drop\n", "who is let in:\n  http: nobody -> anybody\n")
	if len(h.Ups) != 0 {
		t.Error("diff changes something")
	}
	h.types(0, "apply", "-o", "json")
	var v firewall.ApplyReport
	h.json(&v)
	if !v.Applied || len(v.Packets) != 1 || v.Packets[0].What != "http" || v.Packets[0].New != "anybody" || len(v.Changes) != 2 || v.Changes[0].Op != "+" || v.Config != path || v.File != path {
		t.Errorf("JSON: %+v", v)
	}
	h.opens("ssh", "http")
	if o := h.Ups[0]; !o.Running || o.Config != path || len(o.Interfaces) != 0 {
		t.Errorf("options %+v", o)
	}
	h.types(0, "diff")
	h.says("no difference")
}

// Other words for the same packets are told apart from a change.
func TestDiffGoesByPackets(t *testing.T) {
	h := newHost(t)
	path := h.runs("open: [ssh from 10.0.0.0/8, http on eth0 from 203.0.113.0/24]\n")
	for text, says := range map[string]string{
		"[ssh from 10.0.0.0/9, 22/tcp from 10.128.0.0/9, http on eth0 from 203.0.113.0/24]": "these rules let in the same packets as before\n",
		"[ssh from 10.0.0.0/8, http on eth0]":                                               "who is let in:\n  http on eth0: from 203.0.113.0/24 -> anybody\n",
		"[ssh from 10.0.0.0/8 except 10.1.0.0/16, http on eth0 from 203.0.113.0/24]":        "  ssh: from 10.0.0.0/8 -> from 10.0.0.0/8 except 10.1.0.0/16\n",
	} {
		os.WriteFile(path, []byte("open: "+text+"\n"), 0o644)
		h.types(0, "diff")
		h.says(says)
	}
}

// Guests begin outward as long as no forward rule names their bridge. That is told where the last such rule goes, and the
// first one comes.
func TestGuestsWhoseBridgeIsNamedNoLonger(t *testing.T) {
	const named, none = "forward: {open: [81/tcp on br0]}\nopen: [ssh]\n", "open: [ssh]\n"
	const freed, bound = "all on br0: nobody -> anybody: no forward rule names it any more", "all on br0: anybody -> nobody but by rules: a forward rule names it now"
	h := newHost(t)
	h.GuestList = []host.Guests{{Device: "br0"}}
	path := h.runs(named)
	for _, command := range []string{"diff", "apply"} {
		os.WriteFile(path, []byte(none), 0o644)
		h.types(0, command)
		h.says("who is let through:\n  all but 81/tcp on br0: nobody -> anybody\n")
		h.complains(freed)
	}
	for _, command := range []string{"diff", "apply"} {
		os.WriteFile(path, []byte(named), 0o644)
		h.types(0, command)
		h.says("who is let through:\n  all but 81/tcp on br0: anybody -> nobody\n")
		h.complains(bound)
	}
	h.types(0, "close", "--forward", "81/tcp on br0")
	h.complains(freed)
	h.types(0, "open", "--forward", "82/tcp on br0")
	h.complains(bound)
	h.types(0, "open", "--forward", "83/tcp on br0")
	if strings.Contains(h.stderr, "br0: anybody") {
		t.Errorf("a second rule is told as the first: %s", h.stderr)
	}
	os.WriteFile(path, []byte("forward: accept\nopen: [ssh]\n"), 0o644)
	h.types(0, "apply", "--force")
	os.WriteFile(path, []byte(none), 0o644)
	h.types(0, "diff")
	h.says("who is let through:\n  all on eth0,other interfaces: anybody -> nobody\n")
}

func TestApplyOfAnotherFileLeavesThePolicyFile(t *testing.T) {
	h := newHost(t)
	path := h.runs("open: [ssh]\n")
	h.types(0, "open", "8080/tcp", "--runtime")
	other := h.writes("interfaces: [eth1]\nopen: [http]\n")
	h.types(0, "apply", other)
	h.says("+ interface eth1\n", "- open ssh\n", "- open 8080/tcp   (opened with --runtime or --for)\n", "+ open http\n",
		"in force: what "+other+" says, until the next", "writes it to "+path)
	h.complains("eth0 stays filtered, though " + other + " does not name it")
	h.opens("http")
	if h.File != path || !slices.Equal(h.Running.Interfaces, []string{"eth0", "eth1"}) {
		t.Errorf("config %s, interfaces %q", h.File, h.Running.Interfaces)
	}
	h.holds(path, "open: [ssh]\n")
	h.types(0, "--config", other, "apply")
	if h.File != other {
		t.Errorf("the policy file is %s, want %s", h.File, other)
	}
}

func TestApplyEndsWhatIsOpenForTheTimeBeing(t *testing.T) {
	h := newHost(t)
	path := h.runs("open: [ssh]\n")
	h.types(0, "open", "http", "--runtime")
	h.types(0, "apply")
	h.opens("ssh")
	// A rule that the file has got since is no longer one for the time being.
	h.types(0, "open", "http", "--runtime")
	os.WriteFile(path, []byte("open: [ssh, http]\n"), 0o644)
	h.types(0, "apply")
	h.opens("ssh", "http")
	if len(h.Runtime) != 0 {
		t.Errorf("for the time being: %q", h.Runtime)
	}
}

func TestApplyRefuses(t *testing.T) {
	h := newHost(t)
	h.runs("open: [ssh]\n")
	h.session = "203.0.113.5 50000 192.0.2.1 22"
	closed := h.writes("open: [http]\n")
	h.types(1, "apply", closed)
	h.complains(`add "22/tcp from 203.0.113.5" to ` + closed + ", or use --force")
	h.opens("ssh")
	h.types(0, "apply", closed, "--force")
	h.opens("http")
	h.types(1, "apply", h.writes("open: [htttp]\n"))
	h.types(1, "apply", filepath.Join(t.TempDir(), "none.yaml"))
	h.types(2, "apply", closed, closed)
	h.opens("http")
}

func TestCheck(t *testing.T) {
	h := newHost(t)
	h.privileges = errPrivileges // which it does not need
	h.SSHD = []uint16{2222}
	h.session = "203.0.113.5 50000 192.0.2.1 22"
	path := h.writes("interfaces: [nowhere0]\nopen: [http]\n")
	h.types(0, "check", path)
	h.says(path + " is good: open: http\n")
	h.complains(`warning: there is no interface nowhere0: "up" and "apply" refuse this file, "run" waits for it`, "warning: this session (203.0.113.5 to port 22) could not",
		"warning: an sshd listens on port 2222, which no rule opens: add \"2222/tcp\" to let ssh in")
	h.types(0, "--config", path, "check", "-o", "json")
	var v firewall.CheckReport
	h.json(&v)
	if len(v.Rules) != 1 || len(v.Warnings) != 3 {
		t.Errorf("JSON: %+v", v)
	}
	h.types(1, "check", h.writes("open: [htttp]\n"))
	h.complains(":1:8: ")
	// A rule may have as many sources as it needs.
	long := "22/tcp from 192.0.2.1"
	for i := range 250 {
		long += fmt.Sprintf(",198.51.100.%d", i)
	}
	h.types(0, "check", h.writes("open: ['"+long+"']\n"))
	// Good as a file, but more than the datapath takes.
	many := []byte("open:\n- 1/udp\n")
	for port := 1; port <= maps.MaxRules; port++ {
		many = fmt.Appendf(many, "- %d/tcp\n", port)
	}
	h.types(1, "check", h.writes(string(many)))
	h.complains("the policy has 65536 rules, and 65535 is the most")
}

func TestSave(t *testing.T) {
	h := newHost(t)
	path := h.runs(commented)
	h.types(0, "save")
	h.says("nothing to do: " + path + " says what is in force\n")
	h.types(0, "open", "http", "--runtime")
	h.Running = h.Running.Clone()
	h.Running.Input = policy.Accept
	h.types(0, "save")
	h.says("+ open http\n", "~ input: drop -> accept\n", "saved to "+path+"\n")
	h.holds(path, commented+"  - http\ninput: accept\n")
	if len(h.Runtime) != 0 {
		t.Errorf("for the time being: %q", h.Runtime)
	}
	// Another interface than that of the default route has to be in the file.
	h.Running.Interfaces = []string{"eth1"}
	h.types(0, "save")
	h.says("+ interface eth1\n")
	copied := filepath.Join(t.TempDir(), "copy", "fw.yaml")
	h.types(0, "save", "--config", copied, "-o", "json")
	var v firewall.SaveReport
	h.json(&v)
	if !v.Created || v.Config != copied {
		t.Errorf("JSON: %+v", v)
	}
	h.holds(copied, firewall.FileHeader+string(h.Running.YAML()))
	os.WriteFile(path, []byte("open: [ssh\n"), 0o644)
	h.types(1, "save")
	h.holds(path, "open: [ssh\n")
}

func TestSaveThatFailsRestoresTheFile(t *testing.T) {
	h := newHost(t)
	path := h.runs(commented)
	h.types(0, "open", "http", "--runtime")
	h.Fail = errors.New("the kernel says no")
	h.types(1, "save")
	h.complains("the kernel says no")
	h.holds(path, commented)
}

// The flow table keeps its size while the filter runs, so that a change of "flows: max" waits.
func TestApplyDefersTheSizeOfTheFlowTable(t *testing.T) {
	h := newHost(t)
	path := h.runs("flows: {max: 1024}\nopen: [ssh]\n")
	h.Table.Max = 1024
	os.WriteFile(path, []byte("flows: {max: 2048}\nopen: [ssh]\n"), 0o644)
	const change = "~ flows max: 1024 -> 2048 (takes effect after \"down\" and \"up\")\n"
	h.types(0, "diff")
	h.says(change)
	h.complains("the flow table keeps its size of 1024 flows while the filter runs, and the policy asks for 2048", "this opens the host for a moment")
	h.types(0, "apply")
	h.says(change, "in force: what "+path+" says, but for flows max\n")
	for _, again := range []string{"diff", "apply"} {
		h.types(0, again)
		h.says("what " + path + " says is in force, but for flows max\n")
		h.complains("the policy asks for 2048")
	}
	h.types(0, "status")
	h.says(`of 1024 (policy: 2048, takes effect after "down" and "up")`)
	// Back to the size that the table has.
	os.WriteFile(path, []byte("flows: {max: 1024}\nopen: [ssh]\n"), 0o644)
	h.types(0, "apply", "-o", "json")
	var v firewall.ApplyReport
	h.json(&v)
	if len(v.Changes) != 1 || v.Changes[0].Deferred {
		t.Errorf("JSON: %+v", v)
	}
}
