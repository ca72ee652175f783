// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const exampleFile = `# /etc/portcullis/portcullis.yaml
interfaces: [eth0]
input: drop              # default; new packets to this host
forward: drop            # default; packets routed through it. Or: established, accept
icmp: accept             # or a list of types, or drop. What IPv6 and path-MTU need always passes
open:
  - http                 # a service name, a port, a range; /tcp /udp /sctp; no suffix on a name = as in /etc/services
  - 22/tcp from 203.0.113.0/24
  - 60000-61000/udp
invalid: log             # count and log, or: drop, accept
`

func TestParseExample(t *testing.T) {
	want := &Policy{
		Interfaces: []string{"eth0"},
		Open:       []Rule{mustRule(t, "http"), mustRule(t, "22/tcp from 203.0.113.0/24"), mustRule(t, "60000-61000/udp")},
		MaxFlows:   262144,
	}
	if got := mustPolicy(t, exampleFile); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestParseEverything(t *testing.T) {
	want := &Policy{
		Interfaces: []string{"eth0", "1", "a"},
		Input:      Accept,
		Forward:    ForwardEstablished,
		ICMP:       ICMP{ICMPList, []ICMPType{{"echo-request", 8, 128}, {"ipv4/13", 13, -1}, {"ipv6/2", -1, 2}}},
		Open:       []Rule{mustRule(t, "domain"), mustRule(t, "ssh from 192.0.2.1,2001:db8::")},
		Invalid:    InvalidAccept,
		MaxFlows:   1024,
		Timeouts:   map[string]time.Duration{"udp": 90 * time.Second, "tcp-established": 36 * time.Hour},
	}
	for name, text := range map[string]string{
		"block": "interfaces:\n- eth0\n- 1\n- 'a'\ninput: \"accept\"\nforward: established\nicmp:\n  - Echo-Request\n  - ipv4/13\n  - IPv6/2\n" +
			"open:\n    - domain\n    - \"ssh from 192.0.2.1, 2001:db8::\"\ninvalid: accept\nflows:\n  max: 1024\ntimeouts:\n  udp: 1m30s\n  tcp-established: 1d12h\n",
		"flow": "{interfaces: [eth0, 1, a], input: accept, \"forward\": established, icmp: [echo-request, ipv4/13, ipv6/2],\n" +
			"open: [domain, 'ssh from 192.0.2.1,2001:db8::'], invalid: accept, flows: {max: 1024}, timeouts: {udp: 90s, tcp-established: 36h}}",
		"crlf": "interfaces: [eth0, 1, a]\r\ninput: accept\r\nforward: established\r\nicmp: [echo-request, ipv4/13, ipv6/2]\r\n" +
			"open:\r\n  - domain\r\n  - \"ssh from 192.0.2.1,2001:db8::\"\r\ninvalid: accept\r\nflows: {max: 1024}\r\ntimeouts:\r\n  udp: 90s\r\n  tcp-established: 36h\r\n",
	} {
		if got := mustPolicy(t, text); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v\nwant %+v", name, got, want)
		}
	}
	if got := mustPolicy(t, string(want.YAML())); !reflect.DeepEqual(got, want) {
		t.Errorf("YAML:\n%s\nreads as %+v", want.YAML(), got)
	}
}

func TestParseNothing(t *testing.T) {
	for _, text := range []string{"{}", "open: []\n", "open: []", "interfaces: []\ntimeouts: {}\nflows: {}\n"} {
		if got := mustPolicy(t, text); !got.Equal(Default()) || !reflect.DeepEqual(got, Default()) {
			t.Errorf("%q reads as %+v", text, got)
		}
	}
}

func TestParseErrors(t *testing.T) {
	const nothing = `f:1:1: nothing in the file, as if it had been cut off: write what is open, or open: [] for nothing`
	for _, c := range []struct{ name, text, want string }{
		{"unknown key", "opne: [http]\n", `f:1:1: unknown key "opne": did you mean "open"?`},
		{"unknown key, nothing close", "a: 1\n", `f:1:1: unknown key "a": write interfaces, input, forward, icmp, lists, block, trust, open, invalid, enforce, log, flows or timeouts`},
		{"duplicate key", "input: drop\n\n\"input\": accept\n", `f:3:1: duplicate key "input": it is on line 1 already, keep one`},
		{"not a mapping", "- http\n", `f:1:1: list "- http" is no policy: write keys and values, such as input: drop`},
		{"not even a list", "http\n", `f:1:1: value "http" is no policy: write keys and values, such as input: drop`},
		{"written null", "~ # c\n", `f:1:1: value "~" is no policy: write keys and values, such as input: drop`},
		{"empty", "", nothing},
		{"blank", "\n", nothing},
		{"comments", "# only a comment\n", nothing},
		{"mark", "---\n", nothing},
		{"mark and comment", "--- # c\n", nothing},
		{"list null", "open:\n", `f:1:1: no value for "open": write open: [], or a list, such as [http, 22/tcp]`},
		{"list null between keys", "input: drop\nopen: # c\ninvalid: log\n", `f:2:1: no value for "open": write open: [], or a list, such as [http, 22/tcp]`},
		{"list written null", "interfaces: ~\n", `f:1:1: no value for "interfaces": write interfaces: [], or a list, such as [eth0]`},
		{"list null in braces", "{open: , input: drop}\n", `f:1:2: no value for "open": write open: [], or a list, such as [http, 22/tcp]`},
		{"section null", "flows:\n", `f:1:1: no value for "flows": write flows: {}, or keys and values, such as max: 262144`},
		{"section written null", "timeouts: null\n", `f:1:1: no value for "timeouts": write timeouts: {}, or keys and values, such as udp: 30s`},
		{"entry cut off", "open:\n  - http\n  - 22/tcp", `f:3:5: no newline after "22/tcp", as if the file had been cut off: add one`},
		{"entry cut off behind a blank", "open:\n  - 22/tcp \t", `f:2:5: no newline after "22/tcp", as if the file had been cut off: add one`},
		{"interface cut off", "interfaces:\r\n- eth1\r", `f:2:7: line break '\r' is not usual: write a newline`},
		{"anchor on nothing", "&a\n", `f:1:1: anchor "&a": take it out`},
		{"tag on nothing", "!!null\n", `f:1:1: tag "!!null": take it out`},
		{"word", "input: refuse\n", `f:1:8: unknown value "refuse" for "input": write drop, accept or reject`},
		{"word list", "forward: [drop]\n", `f:1:10: list "[drop]" for "forward": write drop, established, accept or {policy: drop, open: [all on eth1]}`},
		{"word missing", "invalid:\n", `f:1:1: no value for "invalid": write log, drop or accept`},
		{"scalar for list", "open: http\n", `f:1:7: value "http" for "open": write a list, such as [http]`},
		{"mapping for list", "interfaces: {a: b}\n", `f:1:13: mapping "{a: b}" for "interfaces": write a list, such as [eth0]`},
		{"null entry", "open:\n  - http\n  -\n", `f:3:4: empty entry in "open": take it out`},
		{"mapping entry", "open:\n  - http: x\n", `f:2:5: mapping "http: x" in "open": write every entry as one line of text`},
		{"rule", "open:\n  - htpt # x\n", `f:2:5: unknown service "htpt": did you mean "http"?`},
		{"rule column", "open:\n  - 22/tcp from 192.0.2.1,  192.0.2.9/24\n", `f:2:29: network "192.0.2.9/24" has host bits set: write 192.0.2.0/24, or 192.0.2.9 for one host`},
		{"rule column in quotes", "open: ['22/tcp form x']\n", `f:1:16: unexpected "form" after "22/tcp": did you mean "from"?`},
		{"rule column with escape", "open: [\"22/tcp\\x20form x\"]\n", `f:1:8: unexpected "form" after "22/tcp": did you mean "from"?`},
		{"column counts characters", "open: [ \"é x\", 80 ]\n", `f:1:10: unknown service "é": write a name from /etc/services or a port, such as 8080/tcp
f:1:16: no protocol in "80": write 80/tcp or 80/udp`},
		{"bare number", "open:\n  - 80\n", `f:2:5: no protocol in "80": write 80/tcp or 80/udp`},
		{"duplicate rule", "open:\n  - http\n  - ssh\n  - 80/tcp\n", `f:4:5: duplicate rule "80/tcp": "http" on line 2 means the same, keep one`},
		{"duplicate interface", "interfaces:\n  - eth0\n  - eth0\n", `f:3:5: duplicate interface "eth0": it is on line 2 already, keep one`},
		{"interface slash", "interfaces: [a/b]\n", `f:1:14: interface name "a/b" has '/' in it: write a name such as eth0, or a pattern such as wg*`},
		{"interface colon", "interfaces: [\"a:b\"]\n", `f:1:14: interface name "a:b" has ':' in it: write a name such as eth0, or a pattern such as wg*`},
		{"interface space", "interfaces: [a b]\n", `f:1:14: interface name "a b" has ' ' in it: write a name such as eth0, or a pattern such as wg*`},
		{"interface dot", "interfaces: [..]\n", `f:1:14: interface name ".." is not possible: write a name such as eth0, or a pattern such as wg*`},
		{"interface long", "interfaces: [abcdefghijklmnop]\n", `f:1:14: interface name "abcdefghijklmnop" is 16 bytes long: write at most 15`},
		{"every interface", "interfaces: [\"*\"]\n", `f:1:14: interface name "*" stands for every interface: write names, or patterns such as wg*`},
		{"interface pattern of a shell", "interfaces: [eth?]\n", `f:1:14: interface name "eth?" is a pattern: write * for what varies, such as wg*`},
		{"interface pattern of iptables", "interfaces: [eth+]\n", `f:1:14: interface name "eth+" is a pattern of iptables: write "eth*"`},
		{"loopback", "interfaces: [eth0, lo]\n", `f:1:20: interface "lo" is the loopback, which is never filtered: take it out`},
		{"interface empty", "interfaces: ['']\n", `f:1:14: empty interface name: write a name such as eth0, or a pattern such as wg*`},
		{"icmp word", "icmp: rejct\n", `f:1:7: unknown value "rejct" for "icmp": write accept, drop or a list of types`},
		{"icmp scalar", "icmp: echo-request\n", `f:1:7: type "echo-request" alone for "icmp": write a list, such as [echo-request]`},
		{"icmp on an interface", "icmp: {a: b}\n", `f:1:11: unknown value "b" for "icmp" on "a": write accept, drop or a list of types`},
		{"icmp null", "icmp:\n", `f:1:1: no value for "icmp": write accept, drop or a list of types`},
		{"icmp name", "icmp: [echo-reqest]\n", `f:1:8: unknown icmp type "echo-reqest": did you mean "echo-request"?`},
		{"icmp number", "icmp: [8]\n", `f:1:8: icmp type "8" has no family: write ipv4/8 or ipv6/8`},
		{"icmp range", "icmp: [ipv6/256]\n", `f:1:8: bad icmp type "ipv6/256": write a number from 0 to 255 after ipv6/`},
		{"icmp duplicate", "icmp: [ipv6/2, packet-too-big]\n", `f:1:16: duplicate icmp type "packet-too-big": the list has "ipv6/2" already, keep one`},
		{"flows low", "flows: {max: 1023}\n", `f:1:14: flows max "1023" is out of range: write 1024 to 16777216`},
		{"flows high", "flows: {max: 16777217}\n", `f:1:14: flows max "16777217" is out of range: write 1024 to 16777216`},
		{"flows text", "flows: {max: 256k}\n", `f:1:14: flows max "256k" is no number: write 1024 to 16777216`},
		{"flows scalar", "flows: 262144\n", `f:1:8: value "262144" for "flows": write keys and values, such as max: 262144`},
		{"flows key", "flows: {maximum: 1}\n", `f:1:9: unknown key "maximum": write max`},
		{"timeout unit", "timeouts:\n  udp: 30\n", `f:2:8: duration "30" has no unit: write 30s`},
		{"timeout syntax", "timeouts:\n  udp: soon\n", `f:2:8: bad duration "soon": write it as 30s, 2m, 12h or 5d`},
		{"timeout range", "timeouts:\n  udp: 31d\n", `f:2:8: duration "31d" is out of range: write 1s to 30d`},
		{"timeout name", "timeouts:\n  upd: 30s\n", `f:2:3: unknown key "upd": did you mean "udp"?`},
		{"timeout null", "timeouts:\n  udp:\n", `f:2:3: no value for "udp": write one, such as udp: 30s`},
		{"timeout list", "timeouts:\n  udp: [1s]\n", `f:2:8: list "[1s]" for "udp": write one value, such as udp: 30s`},
		{"anchor and alias", "open: &a [http]\ninput: *a\n", "f:1:7: anchor \"&a\": take it out\nf:2:8: alias \"*a\": write the value out"},
		{"in the order of the file", "foo: 1\ninput: *a\n", "f:2:8: cannot read \"input: *a\": a policy file has no anchors and aliases: write the value out, or quote a pattern that begins with *"},
		{"pattern without quotes", "interfaces: [*lan]\n", "f:1:14: cannot read \"interfaces: [*lan]\": a policy file has no anchors and aliases: write the value out, or quote a pattern that begins with *"},
		{"star without quotes", "interfaces: [*]\n", "f:1:15: cannot read \"interfaces: [*]\": a policy file has no anchors and aliases: write the value out, or quote a pattern that begins with *"},
		{"in the order of the file too", "input: x\nopen: [&a http]\n", "f:1:8: unknown value \"x\" for \"input\": write drop, accept or reject\nf:2:8: anchor \"&a\": take it out"},
		{"merge", "<<: {input: drop}\n", `f:1:1: merge key "<<": write the keys out`},
		{"behind a bad key", "<<: {input: drop}\nfoo: 1\n", "f:1:1: merge key \"<<\": write the keys out\n" +
			`f:2:1: unknown key "foo": write interfaces, input, forward, icmp, lists, block, trust, open, invalid, enforce, log, flows or timeouts`},
		{"tag", "input: !!str drop\n", `f:1:8: tag "!!str": take it out`},
		{"odd tag", "input: ! drop\n", `f:1:8: tag "!": take it out`},
		{"odd tag of a list", "open: ! []\n", `f:1:7: tag "!": take it out`},
		{"odd tag of nothing", "open: !\n", `f:1:7: tag "!": take it out`},
		{"block text", "input: |\n  drop\n", `f:1:8: value "drop\n" is not plainly on one line: write it on one`},
		{"folded plain", "open:\n  - http\n    from 192.0.2.1\n", `f:2:5: value "http from 192.0.2.1" is not plainly on one line: write it on one`},
		{"folded quotes", "open: ['http\n  from 192.0.2.1']\n", `f:1:8: value "http from 192.0.2.1" is not plainly on one line: write it on one`},
		{"explicit key", "? input\n: drop\n", `f:1:3: no colon after "input": write a colon and a value`},
		{"bare key", "{input}\n", `f:1:2: no colon after "input": write a colon and a value`},
		{"list key", "[a]: b\n", `f:1:1: a list or mapping as a key: write a name`},
		{"documents", "input: drop\n---\ninput: accept\n", `f:2:1: second document in the file: keep one`},
		{"syntax", "input: drop\n  forward: x\n", `f:2:10: cannot read "forward: x": mapping values are not allowed in this context`},
		{"syntax at end", "input: drop\nopen: [http\n", `f:2:7: cannot read "open: [http": a bracket is not closed, or a comma is missing`},
		{"syntax at end of the first line", "open: [http\n", `f:1:7: cannot read "open: [http": a bracket is not closed, or a comma is missing`},
		{"syntax within a list", "open: [http,\n  {a b c}}\nforward: drop\n", `f:2:10: cannot read "{a b c}}": a bracket is not closed, or a comma is missing`},
		{"scalar with a control character", "open: \"\\x7f\"\n", `f:1:7: value "\x7f" for "open": write a list, such as [http, 22/tcp]`},
		{"tab", "open:\n\t- http\n", `f:2:1: cannot read "- http": a tab begins it: indent with spaces`},
		{"list without quotes", "block: [@bad, 192.0.2.1]\n", "f:1:9: cannot read \"block: [@bad, 192.0.2.1]\": what begins with @ needs quotes: write \"@bad\""},
		{"list without quotes or brackets", "trust:\n  - @öffice # ours\n", "f:2:5: cannot read \"- @öffice # ours\": what begins with @ needs quotes: write \"@öffice\""},
		{"two services, and no list", "open: ssh http\n", `f:1:7: value "ssh http" for "open": write a list, such as [ssh, http]`},
		{"two lists, and no list", "block: \"@bad @worse\"\n", `f:1:8: value "@bad @worse" for "block": write a list, such as ["@bad", "@worse"]`},
		{"one rule, and no list", "open: ssh from 192.0.2.1\n", `f:1:7: value "ssh from 192.0.2.1" for "open": write a list, such as [ssh from 192.0.2.1]`},
		{"ping", "open: [ping]\n", `f:1:8: "ping" is no service: the key "icmp" decides about pings and the like, as in icmp: accept or icmp: [echo-request]`},
		{"echo-request", "open: [Echo-Request from 192.0.2.1]\n", `f:1:8: "Echo-Request" is no service: the key "icmp" decides about pings and the like, as in icmp: accept or icmp: [echo-request]`},
		{"routed ping", "forward: {open: [ping]}\n", `f:1:18: "ping" is no service, and forward rules name no type of ICMP: write "all from 203.0.113.0/24" to let everything through`},
		{"interface for a source", "open: [http from eth1]\n", `f:1:18: bad address "eth1": did you mean "on eth1"?`},
		{"interface for a destination", "forward: {open: [http to eth0]}\n", `f:1:26: bad address "eth0": a rule cannot say where a packet leaves; "to" takes addresses, and "on" says by which interface it comes in`},
		{"interfaces for a source", "open: [http from wg*]\n", `f:1:18: bad address "wg*": did you mean "on wg*"?`},
		{"predictable name for a source", "open: [http from enp3s0]\n", `f:1:18: bad address "enp3s0": did you mean "on enp3s0"?`},
		{"host for a source", "open: [http from web1]\n", `f:1:18: bad address "web1": write an address or a network, such as 203.0.113.0/24 or 2001:db8::/32`},
		{"not utf-8", "open:\n  - \xff\n", `f:2:5: byte "\xff" is not utf-8: save the file as utf-8`},
		{"byte order mark", "\ufeffopen: []\n", `f:1:1: byte order mark in the file: save it as utf-8 without one`},
		{"line separator", "input: drop\u2028open: []\n", `f:1:12: line break '\u2028' is not usual: write a newline`},
		{"carriage return", "input: drop\ropen: []\n", `f:1:12: line break '\r' is not usual: write a newline`},
		{"nul", "input: \x00\n", `f:1:8: control character '\x00': take it out`},
		{"all at once", "input: refuse\nopen:\n  - htpt\n  - 80\nfoo: 1\nicmp: [x]\n", `f:1:8: unknown value "refuse" for "input": write drop, accept or reject
f:3:5: unknown service "htpt": did you mean "http"?
f:4:5: no protocol in "80": write 80/tcp or 80/udp
f:5:1: unknown key "foo": write interfaces, input, forward, icmp, lists, block, trust, open, invalid, enforce, log, flows or timeouts
f:6:8: unknown icmp type "x": write a name such as echo-request, or a number such as ipv4/8 or ipv6/128`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := Parse("f", []byte(c.text))
			if err == nil {
				t.Fatalf("%q reads as %+v", c.text, p)
			}
			if err.Error() != c.want {
				t.Errorf("got\n%s\nwant\n%s", err, c.want)
			}
			var bad *Error
			if !errors.As(err, &bad) || bad.File != "f" {
				t.Errorf("%T holds no Error", err)
			}
		})
	}
}

func TestParseErrorHoldsRuleError(t *testing.T) {
	_, err := Parse("f", []byte("open: [htpt]\n"))
	var bad *RuleError
	if !errors.As(err, &bad) || bad.Token != "htpt" {
		t.Errorf("got %v", err)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.yaml")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("open: [htpt]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.HasPrefix(err.Error(), path+":1:8: ") {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(path, []byte(exampleFile), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := Load(path); err != nil || len(p.Open) != 3 {
		t.Errorf("got %v, %v", p, err)
	}
}

func TestYAML(t *testing.T) {
	const want = "interfaces: []\ninput: drop\nforward: drop\nicmp: accept\nopen: []\ninvalid: log\n"
	if got := string(Default().YAML()); got != want {
		t.Errorf("got\n%s", got)
	}
	p := &Policy{
		Interfaces: []string{"eth0", "eth0.100@x", "null", "-", "1", "q\"\\", "\x01", "é"},
		ICMP:       ICMP{Mode: ICMPDrop},
		Open:       []Rule{mustRule(t, "ssh from 192.0.2.1,2001:db8::"), mustRule(t, "yes")},
		MaxFlows:   2048,
		Timeouts:   map[string]time.Duration{"other": 601 * time.Second, "udp": 30 * time.Second},
	}
	for _, name := range []string{"a", "z", "A", "Z", "_", "a0", "z9", "Az-.@"} {
		if got := quoteName(name); got != name {
			t.Errorf("%s is written as %s", name, got)
		}
	}
	const all = `interfaces: [eth0, eth0.100@x, "null", "-", "1", "q\"\\", "\x01", "\u00e9"]
input: drop
forward: drop
icmp: drop
open:
  - "ssh from 192.0.2.1,2001:db8::"
  - "yes"
invalid: log
flows:
  max: 2048
timeouts:
  other: 10m1s
`
	if got := string(p.YAML()); got != all {
		t.Errorf("got\n%s", got)
	}
	if got := mustPolicy(t, all); !got.Equal(p) || !reflect.DeepEqual(got.Interfaces, p.Interfaces) {
		t.Errorf("reads as %+v", got)
	}
}
