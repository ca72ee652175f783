// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
)

func TestFlowSurvivesTheWire(t *testing.T) {
	for _, want := range []Flow{
		{Protocol: 6, Local: netip.MustParseAddrPort("192.0.2.1:54321"), Remote: netip.MustParseAddrPort("198.51.100.7:443"), State: 3, Answered: true, Assured: true, Created: 7, Expires: 1 << 40},
		{Protocol: 17, Local: netip.MustParseAddrPort("[2001:db8::1]:53"), Remote: netip.MustParseAddrPort("[fe80::2]:65535"), State: 11, Expires: 9},
		{Protocol: 1, Local: netip.MustParseAddrPort("192.0.2.1:4660"), Remote: netip.MustParseAddrPort("192.0.2.2:8"), State: 12},
	} {
		var got Flow
		key := flowKey(&want)
		got.setKey(&key)
		value := flowValue(&want)
		got.setValue(&value)
		if got != want {
			t.Errorf("sent %+v, got %+v", want, got)
		}
	}
}

// The datapath compares addresses as they come from the frame.
func TestAddressesAreInNetworkOrder(t *testing.T) {
	key := flowKey(&Flow{Local: netip.MustParseAddrPort("1.2.3.4:5"), Remote: netip.MustParseAddrPort("6.7.8.9:10")})
	if got := addr4(key.Local[0]).AsSlice(); !reflect.DeepEqual(got, []byte{1, 2, 3, 4}) {
		t.Errorf("local is %v", got)
	}
	words := words6(netip.MustParseAddr("102:304:506:708:90a:b0c:d0e:f10"))
	if got := addr6(words).String(); got != "102:304:506:708:90a:b0c:d0e:f10" {
		t.Errorf("got %s", got)
	}
}

// Each timeout of the policy is a state of the datapath, and the other way round.
func TestTimeoutsAndStatesAreTheSame(t *testing.T) {
	states := make(map[string]bool)
	for _, s := range FlowStates() {
		states[s.String()] = true
	}
	for _, timeout := range policy.Timeouts {
		if !states[timeout.Name] {
			t.Errorf("timeout %s is no state of the datapath", timeout.Name)
		}
		delete(states, timeout.Name)
	}
	for s := range states {
		t.Errorf("state %s has no timeout in the policy", s)
	}
}

func TestReasonsHaveNamesAndVerdicts(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range Reasons() {
		name := r.Verdict() + " " + r.String()
		if seen[name] || r.String() == "" {
			t.Errorf("reason %d is called %q", r, name)
		}
		seen[name] = true
		switch r.Verdict() {
		case Pass, Drop, WouldDrop, Seen:
		default:
			t.Errorf("reason %d has the verdict %q", r, r.Verdict())
		}
	}
	for _, want := range []string{"pass established", "drop closed port", "would drop closed port", "seen flows full"} {
		if !seen[want] {
			t.Errorf("there is no reason %q", want)
		}
	}
	if RuleReason(1).Verdict() != Pass {
		t.Error("a rule does not pass")
	}
}

func TestNumber(t *testing.T) {
	rules := func(texts ...string) (out []policy.Rule) {
		for _, text := range texts {
			r, err := policy.ParseRule(text)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, r)
		}
		return out
	}
	number := func(open []policy.Rule, old []Rule, capacity uint32) []uint16 {
		t.Helper()
		numbered, err := Number(open, old, capacity)
		if err != nil {
			t.Fatal(err)
		}
		var ids []uint16
		for _, n := range numbered {
			ids = append(ids, n.ID)
		}
		return ids
	}
	r := rules("80/tcp", "http", "53/udp", "7/tcp")
	old := []Rule{{NumberedRule: policy.NumberedRule{ID: 2, Rule: r[0]}}, {NumberedRule: policy.NumberedRule{ID: 3, Rule: r[2]}}}
	if got, want := number(rules("7/tcp", "http"), old, 16), []uint16{1, 2}; !reflect.DeepEqual(got, want) {
		t.Errorf("got numbers %v, want %v: http keeps that of 80/tcp", got, want)
	}
	if got, want := number(rules("7/tcp", "8/tcp"), old, 16), []uint16{1, 4}; !reflect.DeepEqual(got, want) {
		t.Errorf("got numbers %v, want %v: those of rules in force are not given anew", got, want)
	}
	if _, err := Number(rules("1/tcp", "2/tcp", "3/tcp"), nil, 3); err == nil {
		t.Error("three rules fit in two places")
	}
}
