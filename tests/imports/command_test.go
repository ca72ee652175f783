// SPDX-License-Identifier: Apache-2.0

package imports

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall/importcheck"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

const liveRules = `*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -m set --match-set bad src -j DROP
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
`

// inForce is a host with rules of iptables for both families, and what import --live prints there.
func inForce(t *testing.T, rules, rules6 string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	binary := program(t)
	host := lab.New(t).Server
	host.IP(t, "route", "add", "default", "via", lab.ClientV4.String())
	host.Run(t, "ipset", "create", "bad", "hash:net")
	host.Run(t, "ipset", "add", "bad", "203.0.113.0/24")
	for tool, text := range map[string]string{"iptables-restore": rules, "ip6tables-restore": rules6} {
		load := host.Command(tool)
		load.Stdin = strings.NewReader(text)
		if out, err := load.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", tool, err, out)
		}
	}
	before := host.Run(t, "iptables-save")
	var out, complaint strings.Builder
	cmd := host.Command(binary, append([]string{"import", "--live"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err = cmd.Run()
	if after := host.Run(t, "iptables-save"); withoutComments(after) != withoutComments(before) {
		t.Errorf("the rules of the host were\n%s\nand are\n%s", before, after)
	}
	return out.String(), complaint.String(), err
}

func withoutComments(text string) (out string) {
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ":") {
			out += line
		}
	}
	return out
}

// What is in force is read for both families, with the sets that it names, and compared without a trace.
func TestLive(t *testing.T) {
	six := strings.NewReplacer("-A INPUT -m set --match-set bad src -j DROP\n", "", "22", "8022").Replace(liveRules)
	out, complaint, err := inForce(t, liveRules, six, "--verify", "--packets", "300", "-o", "json")
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, complaint)
	}
	var got struct {
		Policy    string                 `json:"policy"`
		Agreement *importcheck.Agreement `json:"agreement"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got.Policy, "  - 22/tcp from 0.0.0.0/0 except 203.0.113.0/24\n") || !strings.Contains(got.Policy, "  - 8022/tcp from ::/0\n") {
		t.Errorf("the policy is\n%s", got.Policy)
	}
	if a := got.Agreement; a == nil || a.Packets != 300 || a.Alike != 300 {
		t.Errorf("compared: %v", a)
	}
}

// Where the rules differ by interface, that of the default route is among those of the policy.
func TestLiveWithInterfaces(t *testing.T) {
	rules := strings.Replace(liveRules, "-A INPUT -p tcp", "-A INPUT -i wg0 -p udp -m udp --dport 53 -j ACCEPT\n-A INPUT -p tcp", 1)
	out, complaint, err := inForce(t, rules, strings.Replace(rules, "-A INPUT -m set --match-set bad src -j DROP\n", "", 1))
	if err != nil || !strings.Contains(out, "interfaces: [wg0, eth0]\n") || !strings.Contains(out, "  - 53/udp on wg0") {
		t.Errorf("%v\n%s\n%s", err, out, complaint)
	}
}

// A comparison that is cut off leaves nothing behind, and what is not root is told so.
func TestTheHostIsLeftAlone(t *testing.T) {
	binary := program(t)
	links := func() string {
		out, err := exec.Command("ip", "-o", "link").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	before := links()
	rules := filepath.Join(t.TempDir(), "rules.v4")
	if err := os.WriteFile(rules, []byte(strings.Replace(liveRules, "-A INPUT -m set --match-set bad src -j DROP\n", "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	cut := exec.Command("timeout", "--signal=KILL", "0.5", binary, "import", "--verify", rules)
	if out, err := cut.CombinedOutput(); err == nil && len(out) == 0 {
		t.Error("a comparison prints nothing")
	}
	if after := links(); strings.Count(after, "\n") != strings.Count(before, "\n") {
		t.Errorf("the interfaces were\n%s\nand are\n%s", before, after)
	}
	if _, err := os.Stat("/sys/fs/bpf/check"); err == nil {
		t.Error("a filter is left")
	}
	out, err := exec.Command(binary, "import-check").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "namespaces of its own") && !strings.Contains(string(out), "read what to compare") {
		t.Errorf("the comparison itself, run by hand: %v, %s", err, out)
	}
}
