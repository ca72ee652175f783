// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"mvdan.cc/sh/v3/syntax"

	"github.com/portcullis-firewall/portcullis/policy"
)

// imported translates rules of one family.
func imported(t *testing.T, ip6 bool, lines ...string) *Result {
	t.Helper()
	name := "rules.v4"
	if ip6 {
		name = "rules.v6"
	}
	text := "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n" + strings.Join(lines, "\n") + "\nCOMMIT\n"
	r, err := Import([]File{{name, []byte(text)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// rulesetOf reads commands of a script.
func rulesetOf(script string) *ruleset {
	s := newRuleset()
	s.readScript("script", script)
	return s
}

// Types that are never INVALID come in by themselves, and are not listed.
func TestUntrackedTypesAreNotListed(t *testing.T) {
	r := imported(t, true, "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 128 -j ACCEPT")
	if got := r.Policy.ICMP.String(); got != "[ipv6/128]" && got != "[echo-request]" {
		t.Errorf("icmp is %s", got)
	}
}

// A destination may hold groups, or some of them, and more.
func TestDestinationsAroundGroups(t *testing.T) {
	for _, text := range []string{"224.0.0.0/4", "224.0.0.0/3", "224.0.0.0/24", "192.0.2.0/24"} {
		r := imported(t, false, "-A INPUT -d "+text+" -p udp --dport 53 -j ACCEPT")
		if want := "53/udp to " + text; len(r.Policy.Open) != 1 || r.Policy.Open[0].String() != want {
			t.Errorf("-d %s gives\n%s\nwant %s", text, r.YAML(), want)
		}
	}
}

func TestRuleThatEndsInNegation(t *testing.T) {
	if r := parseRule(v4, place{}, wordsOf("-j", "ACCEPT", "!")); r.certain() {
		t.Error("a ! without an option is taken for nothing")
	}
}

// -X takes one chain that is named, or all that are empty.
func TestDeletedChains(t *testing.T) {
	const made = "iptables -N ONE\niptables -N TWO\niptables -N FULL\niptables -A FULL -j DROP\n"
	for command, want := range map[string]string{"iptables -X ONE": "FULL TWO", "iptables -X": "FULL", "iptables -X FULL": "FULL ONE TWO"} {
		s := rulesetOf(made + command)
		var left []string
		for name, c := range s.chains[v4] {
			if c.isUsers() {
				left = append(left, name)
			}
		}
		slices.Sort(left)
		if got := strings.Join(left, " "); got != want {
			t.Errorf("%s leaves %s, want %s", command, got, want)
		}
	}
}

// What a command that is not understood may have done is doubted in its chain, whatever others there are.
func TestDistrustReachesTheChain(t *testing.T) {
	for range 20 { // chains have no order
		s := rulesetOf("iptables -A INPUT -p tcp --dport 80 -j ACCEPT\nfor c in A B C D E F G H; do iptables -N $c; done\niptables -D INPUT $UNKNOWN -F\n")
		if rules := s.chains[v4]["INPUT"].rules; len(rules) != 1 || rules[0].certain() {
			t.Fatalf("the rule is not doubted: %+v", rules)
		}
	}
}

func TestKeysOfICMP(t *testing.T) {
	if of := keysOf(v4, icmpProtocol[v4]); of.first != icmpKey(0, 0) || of.last != icmpKey(255, 255) {
		t.Errorf("the keys of ICMP are %v", of)
	}
	one := func(kind, code uint8) []keys { return []keys{{icmpKey(kind, code), icmpKey(kind, code)}} }
	for _, c := range []struct {
		m        icmpMessage
		home, in family
		want     []keys
	}{
		{icmpMessage{3, 0}, v4, v4, one(3, 0)},
		{icmpMessage{3, 1}, v4, v4, one(3, 1)},
		{icmpMessage{3, -1}, v4, v4, []keys{typeKeys(3)}},
		{icmpMessage{8, -1}, v4, v6, []keys{typeKeys(128)}},
		{icmpMessage{8, 0}, v4, v6, nil},   // codes have no counterpart
		{icmpMessage{13, -1}, v4, v6, nil}, // nor has a timestamp request
	} {
		if got := c.m.in(c.home, c.in); !slices.Equal(got, c.want) {
			t.Errorf("%v in family %d is %v, want %v", c.m, c.in, got, c.want)
		}
	}
}

// A rule that may drop what is forwarded is told of, and one that cannot is not.
func TestDoubtedRulesOfForwarding(t *testing.T) {
	const doubted = "-A FORWARD -i eth0 -p tcp -m string --string x --algo bm -j DROP"
	all := []string{"-A FORWARD -j ACCEPT"}
	for _, c := range []struct {
		lines []string
		told  bool
	}{
		{append([]string{doubted}, all...), true},
		{[]string{"-A INPUT -i eth0 -p tcp --dport 80 -j ACCEPT", doubted}, false}, // nothing is forwarded in any case
	} {
		r := imported(t, false, c.lines...)
		told := slices.ContainsFunc(r.Untranslated, func(f Finding) bool { return strings.Contains(f.Why, "is not forwarded") })
		if told != c.told {
			t.Errorf("%q: told of %t, want %t: %v", c.lines, told, c.told, r.Untranslated)
		}
	}
}

// A word with one part that only the script knows is not known.
func TestKnownWords(t *testing.T) {
	sc := &script{known: map[string]string{"A": "1"}}
	for text, want := range map[string]bool{"$A": true, "x$A": true, "$B": false, "$B$A": false, "$((80))$A": false, "$(x)$A": false, "${A}b": true, "${#A}": false, "${!A}": false} {
		parsed, err := syntax.NewParser().Parse(strings.NewReader("echo "+text), "")
		if err != nil {
			t.Fatal(err)
		}
		word := parsed.Stmts[0].Cmd.(*syntax.CallExpr).Args[1]
		if got := sc.isKnown(word); got != want {
			t.Errorf("%s is known: %t, want %t", text, got, want)
		}
	}
}

// Tables reads what iptables-save prints, comments, quotes and counters among it.
func TestTables(t *testing.T) {
	const text = `# Generated by iptables-save
*nat
:PREROUTING ACCEPT [12:34]
:DOCKER - [0:0]
[1:60] -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER -d 192.0.2.1/32 ! -i docker0 -p tcp -m tcp --dport 8080 -m comment --comment "-j DROP it's" -j DNAT --to-destination 172.17.0.2:80
-A DOCKER -p udp -m multiport --dports 53,60:70 -j REDIRECT --to-ports 8080
-A DOCKER ! -d 192.0.2.9/32 ! -p tcp -j DNAT --to-destination 172.17.0.3
-A DOCKER -p tcp -m multiport ! --dports 22 -j RETURN
COMMIT
*filter
:INPUT DROP [0:0]
-A INPUT -m set --match-set crowdsec-blacklists src -j DROP
COMMIT
`
	tables := Tables(text, false)
	if len(tables) != 2 || tables[0].Name != "nat" || tables[1].Name != "filter" {
		t.Fatalf("got %+v", tables)
	}
	if got := tables[0].Chains["PREROUTING"]; got.Policy != "ACCEPT" || len(got.Rules) != 1 || got.Rules[0].Target != "DOCKER" {
		t.Errorf("PREROUTING is %+v", got)
	}
	want := []Rule{
		{Protocol: policy.TCP, Destination: netip.MustParsePrefix("192.0.2.1/32"), Ports: [][2]uint16{{8080, 8080}}, Target: "DNAT", To: "172.17.0.2:80"},
		{Protocol: policy.UDP, Ports: [][2]uint16{{53, 53}, {60, 70}}, Target: "REDIRECT", To: ":8080"},
		{Target: "DNAT", To: "172.17.0.3"},
		{Protocol: policy.TCP, Target: "RETURN"},
	}
	if got := tables[0].Chains["DOCKER"]; got.Policy != "" || fmt.Sprintf("%+v", got.Rules) != fmt.Sprintf("%+v", want) {
		t.Errorf("DOCKER is %+v, want %+v", got, want)
	}
	input := tables[1].Chains["INPUT"]
	if input.Policy != "DROP" || len(input.Rules) != 1 || !slices.Equal(input.Rules[0].Sets, []string{"crowdsec-blacklists"}) {
		t.Errorf("INPUT is %+v", input)
	}
	if ip6 := Tables("*nat\n-A PREROUTING -d 2001:db8::1 -p tcp --dport 80 -j DNAT --to-destination [fd00::2]:80\n", true); ip6[0].Chains["PREROUTING"].Rules[0].Destination != netip.MustParsePrefix("2001:db8::1/128") {
		t.Errorf("got %+v", ip6[0].Chains["PREROUTING"])
	}
	if got := Tables("-A INPUT -j DROP\n:INPUT DROP\n", false); len(got) != 0 {
		t.Errorf("rules in no table: %+v", got)
	}
}
