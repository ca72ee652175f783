// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// withServices makes /etc/services another file until the test ends.
func withServices(t *testing.T, text string) {
	t.Helper()
	before := defaultServices
	defaultServices = func() *Services { return &Services{text: text} }
	t.Cleanup(func() { defaultServices = before })
}

// What is in force keeps its ports when a name leaves /etc/services or gets another number; the name is shown as long
// as it stands for them.
func TestRestoreRuleAfterAChangeOfServices(t *testing.T) {
	const before = "myapp 4711/tcp\nmydb 4712/tcp\nmydb 4712/udp\n"
	for _, c := range []struct{ name, services, rule, want string }{
		{"as it was", before, "myapp from 192.0.2.0/24", "myapp from 192.0.2.0/24"},
		{"a name left", "", "myapp from 192.0.2.0/24", "4711/tcp from 192.0.2.0/24"},
		{"another number", "myapp 9999/tcp\n", "myapp", "4711/tcp"},
		{"one protocol more", before + "myapp 4711/udp\n", "myapp", "4711/tcp"},
		{"two protocols", before, "mydb", "mydb"},
		{"one protocol less", "mydb 4712/tcp\n", "mydb from 2001:db8::/32,192.0.2.1", "4712/tcp,4712/udp from 2001:db8::/32,192.0.2.1"},
		{"a port", "", "1-65535/udp", "1-65535/udp"},
		{"a name with protocol", "mydb 4713/tcp\n", "mydb/udp", "4712/udp"},
	} {
		t.Run(c.name, func(t *testing.T) {
			withServices(t, before)
			r := mustRule(t, c.rule)
			stored, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			withServices(t, c.services)
			restored, err := RestoreRule(r, r.Spelling())
			if err != nil || restored.String() != c.want || !restored.Equal(r) {
				t.Errorf("restored is %q, %v, want %q", restored, err, c.want)
			}
			var read Rule
			if err := json.Unmarshal(stored, &read); err != nil || read.String() != c.want || !read.Equal(r) || !slices.Equal(read.From, r.From) {
				t.Errorf("%s is read as %q, %v, want %q", stored, read, err, c.want)
			}
		})
	}
}

func TestRestoreRuleRefusesWhatIsNoRule(t *testing.T) {
	port, network := PortRange{TCP, 80, 80}, netip.MustParsePrefix("192.0.2.0/24")
	for _, c := range []struct {
		ports []PortRange
		from  []netip.Prefix
	}{
		{nil, nil},
		{[]PortRange{{TCP, 0, 80}}, nil},
		{[]PortRange{{TCP, 81, 80}}, nil},
		{[]PortRange{{1, 80, 80}}, nil},
		{[]PortRange{port}, []netip.Prefix{{}}},
		{[]PortRange{port}, []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}},
	} {
		if r, err := RestoreRule(Rule{Ports: c.ports, From: c.from}, Spelling{What: "http"}); err == nil {
			t.Errorf("%v from %v is %q", c.ports, c.from, r)
		}
	}
	if _, err := RestoreRule(Rule{Ports: []PortRange{port}, From: []netip.Prefix{network}}, Spelling{What: "http"}); err != nil {
		t.Error(err)
	}
}

// Records of trials and timed rules that an older version has left hold text.
func TestRuleOfAnOlderRecord(t *testing.T) {
	var r Rule
	if err := json.Unmarshal([]byte(`"www from 192.0.2.1"`), &r); err != nil || r.String() != "www from 192.0.2.1" {
		t.Errorf("got %q, %v", r, err)
	}
}

// A file can hold every rule in force, those too for which no text stands any more.
func TestRulesWithoutATextAreSaved(t *testing.T) {
	withServices(t, "mydb 4712/tcp\nmydb 4712/udp\n")
	p := mustPolicy(t, "open: [mydb from 192.0.2.1, 80/tcp]\n")
	withServices(t, "")
	restored, err := RestoreRule(p.Open[0], p.Open[0].Spelling())
	if err != nil {
		t.Fatal(err)
	}
	p.Open[0] = restored
	p.Open = SpellRules(p.Open)
	const want = "open:\n  - 4712/tcp from 192.0.2.1\n  - 4712/udp from 192.0.2.1\n  - 80/tcp\n"
	if text := string(p.YAML()); !strings.Contains(text, want) {
		t.Errorf("the policy is written as %q", text)
	}
	if again := mustPolicy(t, string(p.YAML())); !again.Equal(p) {
		t.Errorf("and read as %v", again.Open)
	}
	both := append(SpellRules([]Rule{restored}), p.Open...)
	if got := fmt.Sprint(SpellRules(append(both, restored))); got != "[4712/tcp from 192.0.2.1 4712/udp from 192.0.2.1 80/tcp]" {
		t.Errorf("rules that others hold too are %s", got)
	}
}

// What stands beside the name of a service that is gone stays, as do the places of the others.
func TestGoneNamesLeaveTheirLines(t *testing.T) {
	t.Cleanup(ForgetServices)
	for before, want := range map[string]string{
		"open:\n  - ssh\n  # the database\n  - mydb from 192.0.2.1 # of the shop, see ticket 7\n  - 80/tcp\n": "open:\n  - ssh\n  # the database\n" +
			"  - 4712/tcp from 192.0.2.1 # of the shop, see ticket 7\n  - 4712/udp from 192.0.2.1\n  - 80/tcp\n",
		"open:\n  - myapp   # ours\n":                            "open:\n  - 4711/tcp   # ours\n",
		"open: [ssh, mydb from 192.0.2.1, 80/tcp] # all\n":       "open: [ssh, 4712/tcp from 192.0.2.1, 4712/udp from 192.0.2.1, 80/tcp] # all\n",
		"open: [\n  ssh, # us\n  'myapp', # ours\n]\n":           "open: [\n  ssh, # us\n  4711/tcp, # ours\n]\n",
		"open:\n  - 4711/udp\n  - \"myapp/tcp on eth1\" # ours":  "open:\n  - 4711/udp\n  - 4711/tcp on eth1 # ours",
		"open:\r\n  - mydb from 192.0.2.1 # a\r\n  - 80/tcp\r\n": "open:\r\n  - 4712/tcp from 192.0.2.1 # a\r\n  - 4712/udp from 192.0.2.1\r\n  - 80/tcp\r\n",
	} {
		withServices(t, "ssh 22/tcp\nmydb 4712/tcp\nmydb 4712/udp\nmyapp 4711/tcp\n")
		p := mustPolicy(t, before)
		withServices(t, "ssh 22/tcp\n")
		for i, r := range p.Open {
			restored, err := RestoreRule(r, r.Spelling())
			if err != nil {
				t.Fatal(err)
			}
			p.Open[i] = restored
		}
		if !RememberServices(p.Open) {
			t.Fatalf("%q: nothing is gone", before)
		}
		remembering := knownServices.Load()
		defaultServices = func() *Services { return remembering } // until the test ends, as withServices has seen to
		got, err := Reader{}.SpellGone("policy", []byte(before))
		if err != nil || string(got) != want {
			t.Errorf("%q becomes\n%q, want\n%q: %v", before, got, want, err)
		}
	}
}

// A policy in numbers is the same one for every list of services.
func TestInNumbers(t *testing.T) {
	withServices(t, "mydb 4712/tcp\nmydb 4712/udp\nmyapp 4711/tcp\n")
	p := mustPolicy(t, "interfaces: [eth0]\nopen: [mydb from 192.0.2.1, 4712/udp from 192.0.2.1, myapp]\n")
	text := string(p.InNumbers().YAML())
	if fmt.Sprint(p.Open) != "[mydb from 192.0.2.1 4712/udp from 192.0.2.1 myapp]" {
		t.Errorf("the policy itself became %v", p.Open)
	}
	withServices(t, "mydb 1/tcp\n")
	again := mustPolicy(t, text)
	if got := fmt.Sprint(again.Open); got != "[4712/tcp from 192.0.2.1 4712/udp from 192.0.2.1 4711/tcp]" {
		t.Errorf("%q is read as %s", text, got)
	}
}

// What is recorded of a policy tells each default, as a later version may have others.
func TestCompleteYAML(t *testing.T) {
	for _, text := range []string{
		"open: []\n",
		"interfaces: [eth0]\nopen: [http]\ninput: accept\nforward: established\nicmp: [echo-request, ipv4/3]\ninvalid: drop\nflows: {max: 2048}\ntimeouts: {udp: 1m, other: 1d}\n",
		"forward: accept\nicmp: drop\ninvalid: accept\n",
	} {
		want := mustPolicy(t, text)
		complete := want.CompleteYAML()
		got, err := Parse("complete", complete)
		if err != nil {
			t.Fatalf("%s: %v", complete, err)
		}
		got.Interfaces, got.Open = want.Interfaces, want.Open
		if diff := Diff(want, got); len(diff) > 0 {
			t.Errorf("%q is recorded as another policy: %v", text, diff)
		}
		for _, timeout := range Timeouts {
			if !strings.Contains(string(complete), "  "+timeout.Name+": ") {
				t.Errorf("%q: no timeout %s in %s", text, timeout.Name, complete)
			}
		}
		for _, key := range []string{"input:", "forward:", "icmp:", "invalid:", "max:"} {
			if !strings.Contains(string(complete), key) {
				t.Errorf("%q: no %s in %s", text, key, complete)
			}
		}
	}
}
