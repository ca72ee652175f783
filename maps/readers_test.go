// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

func TestReadersAreAsManyAsTheDatapathHas(t *testing.T) {
	spec, err := bpf.LoadFirewall()
	if err != nil {
		t.Fatal(err)
	}
	if n := spec.Maps[bpf.FirewallMapReaders].MaxEntries; n != MaxReaders {
		t.Errorf("the datapath has %d readers, and MaxReaders is %d", n, MaxReaders)
	}
	if n := spec.Maps[bpf.FirewallMapAllowances].MaxEntries; n != MaxReaders*uint32(RuleReason(1)) {
		t.Errorf("%d allowances are not those of each reason and of rules, for each reader", n)
	}
}

// What the key log may name is what the datapath counts by: drops, and then the kinds of invalid packets.
func TestLogReasonsAreThoseOfTheDatapath(t *testing.T) {
	var want []string
	for _, r := range Reasons() {
		if r.Verdict() == Drop {
			want = append(want, r.String())
		}
	}
	drops := len(want)
	for _, r := range Reasons() {
		if r.Verdict() == Seen && r != FlowsFull && r != FlowsEvicted && r != Merged {
			want = append(want, r.String())
		}
	}
	if got := policy.LogReasons(); !slices.Equal(got, want) {
		t.Errorf("log may name %q, want %q", got, want)
	}
	for _, c := range []struct {
		log  policy.Log
		want []string
	}{{policy.LogDrops, want[:drops]}, {policy.LogInvalid, want[drops:]}, {0, nil}} {
		if got := c.log.Reasons(); !slices.Equal(got, c.want) {
			t.Errorf("%s is %q, want %q", c.log, got, c.want)
		}
	}
}

func TestWirePrefix(t *testing.T) {
	for _, c := range []struct {
		prefix        string
		address, mask [4]uint32 // as they are read
	}{
		{"0.0.0.0/0", [4]uint32{}, [4]uint32{}},
		{"203.0.113.9/32", [4]uint32{0xcb007109}, [4]uint32{0xffffffff}},
		{"203.0.112.0/20", [4]uint32{0xcb007000}, [4]uint32{0xfffff000}},
		{"2001:db8::/33", [4]uint32{0x20010db8}, [4]uint32{0xffffffff, 0x80000000}},
		{"2001:db8::1/128", [4]uint32{0x20010db8, 0, 0, 1}, [4]uint32{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}},
	} {
		address, mask := wirePrefix(netip.MustParsePrefix(c.prefix))
		for i := range address {
			var a, m [4]byte
			binary.NativeEndian.PutUint32(a[:], address[i])
			binary.NativeEndian.PutUint32(m[:], mask[i])
			if binary.BigEndian.Uint32(a[:]) != c.address[i] || binary.BigEndian.Uint32(m[:]) != c.mask[i] {
				t.Errorf("%s: word %d is %x, %x", c.prefix, i, a, m)
			}
		}
	}
}
