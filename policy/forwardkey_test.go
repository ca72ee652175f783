// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestForwardRules(t *testing.T) {
	for text, want := range map[string]struct{ policy, rules string }{
		"forward: established\n":                                                 {"established", ""},
		"forward: {policy: accept}\n":                                            {"accept", ""},
		"forward: {open: []}\n":                                                  {"drop", ""},
		"forward: {open: [all on eth1, 443/tcp on eth0 to 10.0.0.5]}\n":          {"drop", "all on eth1; 443/tcp on eth0 to 10.0.0.5"},
		"forward:\n  open:\n    - http\n    # c\n    - ssh\n  policy: accept\n":  {"accept", "http; ssh"},
		"lists: {a: [192.0.2.1]}\nforward:\n  open: [gre from @a limit 6/min]\n": {"drop", "gre from @a limit 6/minute"},
	} {
		p := mustPolicy(t, text+"open: [http, 25/tcp]\n")
		if got := strings.Join(Texts(p.ForwardRules()), "; "); p.Forward.String() != want.policy || got != want.rules || len(p.InputRules()) != 2 {
			t.Errorf("%q: %s, %s, of %v", text, p.Forward, got, p.Open)
		}
		if again := mustPolicy(t, string(p.YAML())); !again.Equal(p) || string(again.YAML()) != string(p.YAML()) {
			t.Errorf("%q is written as\n%s", text, p.YAML())
		}
		if settings := p.Settings().Get("forward"); settings != want.policy {
			t.Errorf("%q shows as %v", text, settings)
		}
		if complete := mustPolicy(t, string(p.CompleteYAML())); complete.Forward != p.Forward || len(complete.Open) > 0 {
			t.Errorf("%q is recorded as\n%s", text, p.CompleteYAML())
		}
		for _, r := range p.Open {
			var back Rule
			data, err := json.Marshal(r)
			if err == nil {
				err = json.Unmarshal(data, &back)
			}
			if err != nil || !back.Equal(r) || back.Forward != r.Forward || back.String() != r.String() {
				t.Errorf("%s comes back from %s as %+v, %v", r, data, back, err)
			}
		}
	}
}

func TestForwardErrors(t *testing.T) {
	for text, want := range map[string]string{
		"forward:\n":                                          `f:1:1: no value for "forward": write drop, established, accept or {policy: drop, open: [all on eth1]}`,
		"forward: all on eth1\n":                              `f:1:10: unknown value "all on eth1" for "forward": write drop, established, accept or {policy: drop, open: [all on eth1]}`,
		"forward: {}\n":                                       `f:1:10: nothing in the braces of "forward": write one word, or such as {policy: drop, open: [all on eth1]}`,
		"forward: {policy: reject}\n":                         `f:1:19: unknown value "reject" for "policy": write drop, established or accept`,
		"forward: {policy: [drop]}\n":                         `f:1:19: list "[drop]}" for "policy": write drop, established or accept`,
		"forward: {policy: }\n":                               `f:1:11: no value for "policy": write drop, established or accept`,
		"forward: {open: }\n":                                 `f:1:11: no value for "open": write open: [], or a list, such as [all on eth1]`,
		"forward: {open: all on eth1}\n":                      `f:1:17: value "all on eth1" for "open": write a list, such as [all on eth1]`,
		"forward: {open: {http: eth1}}\n":                     `f:1:17: mapping "{http: eth1}}" for "open": write a list, such as [all on eth1]`,
		"forward: {opne: [http]}\n":                           `f:1:11: unknown key "opne": did you mean "open"?`,
		"forward: {open: [], open: [http]}\n":                 `f:1:21: duplicate key "open": it is on line 1 already, keep one`,
		"forward: drop\nforward: {open: [http]}\n":            `f:2:1: duplicate key "forward": it is on line 1 already, keep one`,
		"forward: {open: [http, 80/tcp]}\n":                   `f:1:24: duplicate rule "80/tcp": "http" on line 1 means the same, keep one`,
		"forward:\n  open:\n    - 80/tcp form 192.0.2.1\n":    `f:3:14: unexpected "form" after "80/tcp": did you mean "from"?`,
		"forward:\n  open:\n    - http":                       `f:3:7: no newline after "http", as if the file had been cut off: add one`,
		"forward: {open: [http to 127.0.0.1]}\n":              `f:1:23: nothing is routed to "127.0.0.1": such an address is good on one link only`,
		"forward: {open: [http to 255.255.255.255]}\n":        `f:1:23: nothing is routed to "255.255.255.255": such an address is good on one link only`,
		"forward: {open: [\"http from fe80::1\"]}\n":          `f:1:24: nothing is routed from "fe80::1": such an address is good on one link only`,
		"forward: {open: [http from 192.0.2.1 on *]}\n":       `f:1:41: "*" stands for every interface: leave "on" out`,
		"forward: {open: [http to]}\n":                        `f:1:23: no address after "to": write to 203.0.113.0/24, or leave "to" out`,
		"forward: {open: [http from @a]}\n":                   `f:1:28: unknown list "@a": name it and its networks under lists in the policy file`,
		"forward: {open: [http except 0.0.0.0/0,\"::/0\"]}\n": "",
	} {
		_, err := Parse("f", []byte(text))
		if want == "" {
			if err == nil {
				t.Errorf("%q is good", text)
			}
			continue
		}
		if err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		}
	}
}

// The same rule may be about both.
func TestForwardRulesAreNoOthers(t *testing.T) {
	p := mustPolicy(t, "open: [http from 192.0.2.0/24, 1-100/tcp]\nforward: {open: [http, ssh on eth1, 22/tcp from 10.0.0.0/8, 22/tcp]}\n")
	if len(p.Open) != 6 {
		t.Fatalf("got %v", p.Open)
	}
	http, routed := mustRule(t, "http"), mustRule(t, "http")
	routed.Forward = true
	if http.Equal(routed) || http.Overlaps(routed) || len(p.Covering(http)) != 1 || len(p.Overlapping(routed)) != 1 {
		t.Errorf("%v is covered by %v, %v overlaps %v", http, p.Covering(http), routed, p.Overlapping(routed))
	}
	if got := Texts(p.RestrictingNothing()); strings.Join(got, "; ") != "http from 192.0.2.0/24; ssh on eth1; 22/tcp from 10.0.0.0/8" {
		t.Errorf("%v restrict nothing", got)
	}
	const covered = `forward rule "22/tcp from 10.0.0.0/8" restricts nothing: "22/tcp" lets all of it through already, until closed`
	if texts := p.UselessTexts(); len(texts) != 3 || texts[2] != covered {
		t.Errorf("got %q", texts)
	}
	p.Forward = ForwardAccept
	const useless = `"forward: accept" lets everything through, so that its rules ("http", "ssh on eth1", "22/tcp from 10.0.0.0/8" and "22/tcp") have no effect: write drop or established, or take them out`
	if texts := p.UselessTexts(); len(texts) != 2 || texts[1] != useless {
		t.Errorf("got %q", texts)
	}
	without, removed, err := p.WithoutRule(routed)
	if err != nil || !removed.Forward || len(without.Open) != 5 || len(without.InputRules()) != 2 {
		t.Errorf("without it: %v, %v", without, err)
	}
	part := mustRule(t, "80/tcp from 192.0.2.1")
	part.Forward = true
	const hint = `no forward rule "80/tcp from 192.0.2.1", but its ports are open through "http": close --forward "http", then open --forward "http except 192.0.2.1"`
	if _, _, err := p.WithoutRule(part); err == nil || err.Error() != hint {
		t.Errorf("got %v", err)
	}
	changes := Diff(mustPolicy(t, "forward: {open: [http]}\n"), mustPolicy(t, "forward: {policy: established, open: [ssh]}\nopen: [http]\n"))
	var texts []string
	for _, c := range changes {
		texts = append(texts, c.String())
	}
	if got := strings.Join(texts, "; "); got != "~ forward: drop -> established; - forward open http; + forward open ssh; + open http" {
		t.Errorf("got %s", got)
	}
}

func TestEditForwardRules(t *testing.T) {
	for _, c := range []struct{ old, rule, text string }{
		{"forward: drop   # c\nopen: []\n", "all on eth1", "forward:\n  policy: drop   # c\n  open:\n    - all on eth1\nopen: []\n"},
		{"# a\nforward:   # b\n  established # c\nopen: []\n", "http", "# a\nforward:   # b\n  policy: established # c\n  open:\n    - http\nopen: []\n"},
		{"open: []", "80,443/tcp", "open: []\nforward:\n  policy: drop\n  open:\n    - 80,443/tcp\n"},
		{"open: []\nforward: drop", "http", "open: []\nforward:\n  policy: drop\n  open:\n    - http\n"},
		{"forward: accept\r\nopen: []\r\n", "http", "forward:\r\n  policy: accept\r\n  open:\r\n    - http\r\nopen: []\r\n"},
		{"{}\n", "80,443/tcp", "{forward: {policy: drop, open: [\"80,443/tcp\"]}}\n"},
		{"{forward: drop, open: []} # c\n", "http", "{forward: {policy: drop, open: [http]}, open: []} # c\n"},
		{"forward: {policy: drop} # c\n", "http", "forward: {policy: drop, open: [http]} # c\n"},
		{"forward:\n  policy: drop # c\n", "http", "forward:\n  policy: drop # c\n  open: [http]\n"},
		{"forward:\n  open: [] # c\n", "http", "forward:\n  open: [http] # c\n"},
		{"forward:\n  open:\n  # b\n  - ssh # c\n  policy: accept\n", "http", "forward:\n  open:\n  # b\n  - ssh # c\n  - http\n  policy: accept\n"},
		{"open: [http]\nforward: {open: [ssh, https]}\n", "http", "open: [http]\nforward: {open: [ssh, https, http]}\n"},
	} {
		r := mustRule(t, c.rule)
		r.Forward = true
		with, err := InsertRule("f", []byte(c.old), r)
		if err != nil || string(with) != c.text {
			t.Errorf("%q with %s:\n got %q, %v\nwant %q", c.old, r, with, err, c.text)
			continue
		}
		without, err := RemoveRule("f", with, r)
		if err != nil || !mustPolicy(t, string(without)).Equal(mustPolicy(t, c.old+"\n")) {
			t.Errorf("%q without %s: %q, %v", with, r, without, err)
		}
	}
	r := mustRule(t, "http")
	r.Forward = true
	if got, err := RemoveRule("f", []byte("open: [http]\nforward:\n  policy: drop\n  open: # a\n    - http # b\n"), r); err != nil ||
		string(got) != "open: [http]\nforward:\n  policy: drop\n  open: [] # a\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestRewriteForward(t *testing.T) {
	for _, c := range []struct{ old, want, text string }{
		{"forward: drop # c\n", "forward: {policy: established, open: [http, ssh]}", "forward:\n  policy: established # c\n  open:\n    - http\n    - ssh\n"},
		{"forward: {open: [http]} # c\n", "forward: accept", "forward: {open: [], policy: accept} # c\n"},
		{"forward: {policy: drop, open: [http]} # c\n", "forward: {policy: accept, open: [ssh]}", "forward: {policy: accept, open: [ssh]} # c\n"},
		{"forward:\n  policy: drop # a\n  open: # b\n    - http # c\n", "forward: accept", "forward:\n  policy: accept # a\n  open: [] # b\n"},
		{"open: [http]\n", "forward: {open: [http]}", "open: []\nforward:\n  policy: drop\n  open:\n    - http\n"},
	} {
		got, err := Rewrite("f", []byte(c.old), mustPolicy(t, c.want))
		if err != nil || string(got) != c.text {
			t.Errorf("%q to mean %q:\n got %q, %v\nwant %q", c.old, c.want, got, err, c.text)
		}
	}
}
