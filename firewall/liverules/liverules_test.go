// SPDX-License-Identifier: Apache-2.0

package liverules

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/host/netfilter"
)

const (
	some = "*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\n"
	none = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"
)

// host runs the programs that it has.
func host(programs map[string]string) runner {
	return func(_ context.Context, name string, args ...string) ([]byte, error) {
		out, ok := programs[strings.Join(append([]string{name}, args...), " ")]
		switch {
		case !ok:
			return nil, exec.ErrNotFound
		case strings.HasPrefix(out, "!"):
			return nil, errors.New(out[1:])
		}
		return []byte(out), nil
	}
}

func TestRulesInForce(t *testing.T) {
	for _, c := range []struct {
		name     string
		programs map[string]string
		read     string // the programs whose rules are taken
		warning  string
		err      string
	}{
		{"both families", map[string]string{"iptables-save": some, "ip6tables-save": some}, "iptables-save ip6tables-save", "", ""},
		{"sets", map[string]string{"iptables-save": some, "ip6tables-save": some, "ipset save": "create x hash:ip family inet\n"}, "iptables-save ip6tables-save ipset save", "", ""},
		{"no rules for IPv6", map[string]string{"iptables-save": some, "ip6tables-save": none}, "iptables-save", "no rules for IPv6", ""},
		{"the older kind", map[string]string{"iptables-save": none, "iptables-nft-save": "", "iptables-legacy-save": some, "ip6tables-save": some}, "iptables-legacy-save ip6tables-save", "", ""},
		{"the newer kind", map[string]string{"iptables-save": none, "iptables-nft-save": some, "iptables-legacy-save": none, "ip6tables-save": some}, "iptables-nft-save ip6tables-save", "", ""},
		{"both kinds", map[string]string{"iptables-save": some, "iptables-nft-save": some, "iptables-legacy-save": some}, "", "", "a packet has to pass both"},
		{"no iptables", map[string]string{"ipset save": ""}, "", "", "neither iptables-save nor ip6tables-save"},
		{"a program that fails", map[string]string{"iptables-save": "!you are not root"}, "", "", "you are not root"},
		{"sets that cannot be read", map[string]string{"iptables-save": some, "ip6tables-save": some, "ipset save": "!no module"}, "iptables-save ip6tables-save", "no module", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := read(context.Background(), host(c.programs))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("the error is %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, f := range l.Files() {
				names = append(names, f.Name)
			}
			warns := strings.Join(l.Warnings, " ")
			if got := strings.Join(names, " "); got != c.read || c.warning == "" && warns != "" || !strings.Contains(warns, c.warning) {
				t.Errorf("reads %s, warns %q; want %s, %q", got, l.Warnings, c.read, c.warning)
			}
			for _, r := range l.Rules {
				if want := map[bool]int{true: 6, false: 4}[strings.HasPrefix(r.Name, "ip6")]; r.Family != want {
					t.Errorf("%s is of family %d", r.Name, r.Family)
				}
			}
		})
	}
}

// What decides beside iptables is told of, and what decides nothing is not.
func TestWhatDecidesBeside(t *testing.T) {
	l := &Live{}
	l.beside([]netfilter.Filter{
		{Family: "ip", Table: "filter", Chain: "INPUT", Owner: "iptables", Rules: 3},
		{Family: "inet", Table: "mine", Chain: "input", Owner: "nft", Rules: 3},
		{Family: "inet", Table: "firewalld", Chain: "filter_INPUT", Owner: "firewalld", Drops: true},
		{Family: "inet", Table: "empty", Chain: "input", Owner: "nft"},
	})
	if len(l.Warnings) != 2 || !strings.Contains(l.Warnings[0], "table inet mine") || !strings.Contains(l.Warnings[1], "table inet firewalld") {
		t.Errorf("warns %q", l.Warnings)
	}
}
