// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"
)

func TestLogKey(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"{}", "none"},
		{"log: none", "none"},
		{"log: drops", "drops"},
		{"log: invalid", "invalid"},
		{"log: []", "none"},
		{"log: [banned, closed port]", "[closed port, banned]"},
		{"log: [invalid header, invalid length, invalid flags, invalid state, invalid icmp]", "invalid"},
	} {
		p, err := Parse("f", []byte(c.text+"\n"))
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got := p.Log.String(); got != c.want {
			t.Errorf("%s is %s, want %s", c.text, got, c.want)
		}
		again, err := Parse("f", p.CompleteYAML())
		if err != nil || again.Log != p.Log {
			t.Errorf("%s: written and read it is %s, %v", c.text, again.Log, err)
		}
	}
	for _, c := range []struct{ text, want string }{
		{"log: everything", `unknown value "everything" for "log": write none, drops, invalid, or a list of reasons such as [closed port]`},
		{"log: closed port", `reasons for "log" are a list: write [closed port]`},
		{"log: closed port, banned", `write [closed port, banned]`},
		{"log: closed prt", `did you mean [closed port]?`},
		{"log: drps", `did you mean "drops"?`},
		{"log:", `no value for "log"`},
		{"log: [closed prt]", `did you mean "closed port"?`},
		{"log: [banned, banned]", "duplicate reason"},
		{"log: {a: b}", `for "log": write none, drops, invalid, or a list`},
	} {
		if _, err := Parse("f", []byte(c.text+"\n")); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.text, err, c.want)
		}
	}
}
