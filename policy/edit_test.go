// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"strings"
	"testing"
)

func TestInsertRule(t *testing.T) {
	for _, c := range []struct{ name, before, rule, after string }{
		{"no key", "input: drop # c\n", "http", "input: drop # c\nopen:\n  - http\n"},
		{"no key, no newline", "input: drop", "http", "input: drop\nopen:\n  - http\n"},
		{"no key, indented", "  input: drop\n# end\n", "http", "  input: drop\n# end\n  open:\n    - http\n"},
		{"no key, end mark", "input: drop\n...\n# after\n", "http", "input: drop\nopen:\n  - http\n...\n# after\n"},
		{"no key, end mark first", "...\ninput: drop\n...\n", "http", "...\ninput: drop\nopen:\n  - http\n...\n"},
		{"no key, flow", "{input: drop}\n", "http", "{input: drop, open: [http]}\n"},
		{"block, far, no newline", "open:\n      -   'http'", "ssh", "open:\n      -   'http'\n      - ssh\n"},
		{"no key, flow, list last", "{interfaces: [a, b , ] } # c\n", "http", "{interfaces: [a, b , ], open: [http] } # c\n"},
		{"no key, flow, section last", "{timeouts: {udp: 1s, icmp: '2s'}}\n", "http", "{timeouts: {udp: 1s, icmp: '2s'}, open: [http]}\n"},
		{"no key, flow, quotes last", "{interfaces: ['a''b', \"c\\\"d\"]}", "http", "{interfaces: ['a''b', \"c\\\"d\"], open: [http]}"},
		{"no key, flow, quote in quotes", "{interfaces: ['a'']']}", "http", "{interfaces: ['a'']'], open: [http]}"},
		{"no key, flow, escape in quotes", "{interfaces: [\"a\\\"]\"]}", "http", "{interfaces: [\"a\\\"]\"], open: [http]}"},
		{"empty flow", "{}", "http", "{open: [http]}"},
		{"block", "open:\n  # web\n  - http   # c\n\n# more\ninput: drop\n", "ssh", "open:\n  # web\n  - http   # c\n  - ssh\n\n# more\ninput: drop\n"},
		{"block, not indented", "open:\n- 'http'\ninput: drop\n", "ssh", "open:\n- 'http'\n- ssh\ninput: drop\n"},
		{"crlf", "open:\r\n  - http\r\ninput: drop\r\n", "ssh", "open:\r\n  - http\r\n  - ssh\r\ninput: drop\r\n"},
		{"crlf, no key", "input: drop\r\n", "ssh", "input: drop\r\nopen:\r\n  - ssh\r\n"},
		{"flow", "open: [http, \"25/tcp\" ] # c\n", "ssh", "open: [http, \"25/tcp\", ssh ] # c\n"},
		{"flow, empty", "open: [ ]\n", "ssh", "open: [ssh ]\n"},
		{"flow, comma at end", "open: [http,]\n", "ssh", "open: [http, ssh,]\n"},
		{"flow, lines", "open: [\n  http, # a\n  25/tcp # b\n]\n", "ssh", "open: [\n  http, # a\n  25/tcp, ssh # b\n]\n"},
		{"flow, quoted", "open: [http]\n", "ssh from 192.0.2.1,2001:db8::", "open: [http, \"ssh from 192.0.2.1,2001:db8::\"]\n"},
		{"flow, comma", "open: [http]\n", "ssh from 192.0.2.1,192.0.2.2", "open: [http, \"ssh from 192.0.2.1,192.0.2.2\"]\n"},
		{"block, comma", "open:\n- http\n", "ssh from 192.0.2.1,192.0.2.2", "open:\n- http\n- ssh from 192.0.2.1,192.0.2.2\n"},
		{"block, colon", "open:\n- http\n", "ssh from 2001:db8::", "open:\n- http\n- \"ssh from 2001:db8::\"\n"},
		{"block, yaml word", "open:\n- http\n", "yes", "open:\n- http\n- \"yes\"\n"},
		{"other letters", "# größe\nopen: [\"80/tcp\" ] # é\n", "ssh", "# größe\nopen: [\"80/tcp\", ssh ] # é\n"},
		{"there already", "open:\n- http\n", "80/tcp", "open:\n- http\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := InsertRule("f", []byte(c.before), mustRule(t, c.rule))
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.after {
				t.Errorf("got\n%q\nwant\n%q", got, c.after)
			}
		})
	}
}

func TestRemoveRule(t *testing.T) {
	for _, c := range []struct{ name, before, rule, after string }{
		{"block", "open:\n  # web\n  - http   # c\n\n  # admin\n  - ssh\n", "80/tcp", "open:\n  # web\n\n  # admin\n  - ssh\n"},
		{"block, last", "open:\n- http\n- ssh # c\ninput: drop\n", "ssh", "open:\n- http\ninput: drop\n"},
		{"block, no newline", "open:\n- http\n- 'ssh'", "ssh", "open:\n- http\n"},
		{"block, only one", "# top\nopen:  # c\n  # web\n  - http # d\ninput: drop\n", "http", "# top\nopen: []  # c\n  # web\ninput: drop\n"},
		{"block, only one, no newline", "open:\n  - \"http\"", "http", "open: []\n"},
		{"crlf", "open:\r\n  - http\r\n  - ssh\r\n", "http", "open:\r\n  - ssh\r\n"},
		{"crlf, no newline", "open:\r\n  - http\r\n  - ssh # c", "ssh", "open:\r\n  - http\r\n"},
		{"alias of a service", "open: [www, ssh]\n", "80/tcp", "open: [ssh]\n"},
		{"flow, middle", "open: [http, 'ssh',  25/tcp] # c\n", "22/tcp", "open: [http, 25/tcp] # c\n"},
		{"flow, last", "open: [http , ssh ]\n", "22/tcp", "open: [http ]\n"},
		{"flow, last with comma", "open: [http, ssh,]\n", "22/tcp", "open: [http, ]\n"},
		{"flow, only one", "open: [ http, ]\n", "http", "open: []\n"},
		{"flow, only one, in flow", "{open: [http], input: drop}", "http", "{open: [], input: drop}"},
		{"flow, lines", "open: [\n  http, # a\n  # b\n  ssh, # c\n  25/tcp # d\n]\n", "ssh", "open: [\n  http, # a\n  # b\n  25/tcp # d\n]\n"},
		{"flow, lines, last", "open: [\n  http, # a\n  ssh # c\n]\n", "ssh", "open: [\n  http, # a\n]\n"},
		{"flow, lines, last, bracket", "open: [\n  http,\n  ssh]\n", "ssh", "open: [\n  http,\n  ]\n"},
		{"flow, lines, first", "open: [http, # a\n  ssh]\n", "http", "open: [ # a\n  ssh]\n"},
		{"flow, comma on next line", "open: [http # a\n  , ssh]\n", "http", "open: [ # a\n   ssh]\n"},
		{"flow, lines, only one", "open: [\n  # a\n  http\n]\n", "http", "open: [\n  # a\n]\n"},
		{"quoted sources", "open: [\"ssh from 192.0.2.1,192.0.2.2\", http]\n", "ssh from 192.0.2.2,192.0.2.1", "open: [http]\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := RemoveRule("f", []byte(c.before), mustRule(t, c.rule))
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.after {
				t.Errorf("got\n%q\nwant\n%q", got, c.after)
			}
		})
	}
}

func TestEditErrors(t *testing.T) {
	http := mustRule(t, "http")
	if _, err := RemoveRule("f", []byte("open: [ssh]\n"), http); !errors.Is(err, ErrNotOpen) || err.Error() != `f: close "http": not open` {
		t.Errorf("not open: %v", err)
	}
	var covered *CoveredError
	if _, err := RemoveRule("f", []byte("open: [79-81/tcp]\n"), http); !errors.As(err, &covered) || !strings.HasPrefix(err.Error(), "f: no rule") {
		t.Errorf("covered: %v", err)
	}
	var bad *Error
	if _, err := RemoveRule("f", []byte("opne: []\n"), http); !errors.As(err, &bad) {
		t.Errorf("bad file, remove: %v", err)
	}
	if _, err := InsertRule("f", []byte("opne: []\n"), http); !errors.As(err, &bad) {
		t.Errorf("bad file, insert: %v", err)
	}
	const dash = `f: remove rule "http": the dash of the entry on line 2 is on another line: put them on one`
	if _, err := RemoveRule("f", []byte("open:\n  - # c\n    http\n"), http); err == nil || err.Error() != strings.Replace(dash, "line 2", "line 3", 1) {
		t.Errorf("dash: %v", err)
	}
	// A rule that no text stands for must not get into a file as another one.
	odd := Rule{Ports: []PortRange{{TCP, 80, 80}, {UDP, 82, 82}}}
	if out, err := InsertRule("f", []byte("open: []\n"), odd); err == nil || !strings.Contains(err.Error(), "edit it by hand") {
		t.Errorf("odd rule: %q, %v", out, err)
	}
	if out, err := InsertRule("f", []byte("open: []\n"), Rule{Ports: []PortRange{{TCP, 80, 80}}, what: "ssh"}); err == nil || !strings.Contains(err.Error(), "would not mean") {
		t.Errorf("lying rule: %q, %v", out, err)
	}
}

func TestInsertDoesNotTouchItsInput(t *testing.T) {
	data := append(make([]byte, 0, 100), "open: [http]\n"...)
	if _, err := InsertRule("f", data, mustRule(t, "ssh")); err != nil || string(data) != "open: [http]\n" {
		t.Errorf("%q, %v", data, err)
	}
}
