// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/policy"
)

func TestForwardRules(t *testing.T) {
	h := newHost(t)
	path := h.runs("# Mine.\nforward: drop   # nothing yet\nopen: [http]\n")
	h.types(0, "open", "--forward", "all", "on", "eth1", "http")
	h.says("opened forward rule all on eth1\n", "opened forward rule http\n", "saved to "+path)
	h.holds(path, "# Mine.\nforward:\n  policy: drop   # nothing yet\n  open:\n    - all on eth1\n    - http\nopen: [http]\n")
	if got := strings.Join(policy.Texts(h.Running.ForwardRules()), "; "); got != "all on eth1; http" || len(h.Running.InputRules()) != 1 {
		t.Errorf("in force are %s, of %v", got, h.Running.Open)
	}
	h.types(0, "status")
	h.says("OPEN  PACKETS\nhttp  7\n", "FORWARDED    PACKETS\nall on eth1  7\nhttp         7\n", "forward drop")
	h.types(0, "status", "-o", "json")
	var v firewall.Status
	h.json(&v)
	var kinds []bool
	for _, r := range v.Rules {
		kinds = append(kinds, r.Forward)
	}
	if !slices.Equal(kinds, []bool{false, true, true}) {
		t.Errorf("JSON of status: %s", h.stdout)
	}
	h.types(0, "up", "--config", path)
	h.says("open: http; forwarded: all on eth1; http\n")
	h.types(0, "check", path, "-o", "json")
	var checked struct {
		Rules   []string
		Forward []string `json:"forward_rules"`
	}
	h.json(&checked)
	if len(checked.Rules) != 1 || len(checked.Forward) != 2 {
		t.Errorf("JSON of check: %s", h.stdout)
	}

	h.types(0, "close", "http")
	h.types(0, "close", "http")
	h.says("not open: http\n")
	h.complains("http is a forward rule: \"portcullis close --forward\" closes it")
	h.types(1, "close", "--forward", "22/tcp", "on", "eth1")
	h.complains(`no forward rule "22/tcp on eth1", but its ports are open through "all on eth1": close --forward "all on eth1"`)
	h.types(0, "close", "--forward", "all", "on", "eth1", "http")
	h.says("closed forward rule all on eth1\n", "closed forward rule http\n")
	h.holds(path, "# Mine.\nforward:\n  policy: drop   # nothing yet\n  open: []\nopen: []\n")
	h.types(0, "status")
	h.says("no port is open")
	if strings.Contains(h.stdout, "FORWARDED") {
		t.Errorf("status has an empty part:\n%s", h.stdout)
	}
	h.types(2, "open", "--forward", "ssh", "to", "127.0.0.1")
	h.complains("nothing is routed to \"127.0.0.1\"")
}

// What is let through is shown apart from what is let in.
func TestDiffOfForwardRules(t *testing.T) {
	h := newHost(t)
	h.runs("open: [ssh]\n")
	path := h.writes("open: [ssh, http]\nforward: {policy: established, open: [443/tcp on eth0 to 10.0.0.5]}\n")
	h.types(0, "diff", path)
	h.says("~ forward: drop -> established\n+ forward open 443/tcp on eth0 to 10.0.0.5\n+ open http\n",
		"who is let in:\n  http: nobody -> anybody\nwho is let through:\n  443/tcp on eth0: nobody -> anybody to 10.0.0.5\n")
	h.types(0, "diff", path, "-o", "json")
	var v struct{ Packets []map[string]any }
	if err := json.Unmarshal([]byte(h.stdout), &v); err != nil || len(v.Packets) != 2 || v.Packets[0]["forward"] != false || v.Packets[1]["forward"] != true {
		t.Errorf("JSON of diff: %s, %v", h.stdout, err)
	}
	h.types(0, "diff", h.writes("open: [ssh]\nforward: {open: [http]}\n"))
	if strings.Contains(h.stdout, "let in:") {
		t.Errorf("nobody else is let in:\n%s", h.stdout)
	}
}

// A rule that was opened for a time is not the one of the other kind that reads alike.
func TestTimedForwardRule(t *testing.T) {
	h := newHost(t)
	path := h.runs("open: [ssh]\n")
	h.types(0, "open", "--forward", "http", "--for", "1h")
	h.says("opened forward rule http\n", "not saved: it closes at")
	h.holds(path, "open: [ssh]\n")
	h.types(0, "open", "http")
	h.says("opened http\n", "saved to")
	h.types(0, "close", "http", "--runtime")
	h.types(0, "diff")
	h.says("- forward open http   (opened with --runtime or --for)\n", "+ open http\n")
}
