// SPDX-License-Identifier: Apache-2.0

// Package policytest makes policies that differ in one field, for tests that
// must not miss a field that is added later.
package policytest

import (
	"encoding"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/policy"
)

// Base returns a policy in which every list has an entry, and every rule each
// clause.
func Base(t testing.TB) *policy.Policy {
	prefixes := func(texts ...string) (out []netip.Prefix) {
		for _, text := range texts {
			out = append(out, netip.MustParsePrefix(text))
		}
		return out
	}
	bad, worse := prefixes("192.0.2.128/25"), prefixes("2001:db8:bad::/48")
	return &policy.Policy{
		Interfaces: []string{"eth0"},
		Lists:      []policy.List{{Name: "bad", Networks: bad}, {Name: "worse", Networks: worse}},
		Block: []policy.Source{
			{Network: netip.MustParsePrefix("203.0.113.9/32")},
			{List: "bad", Holds: policy.NewNetworks(bad)},
		},
		Trust:     []policy.Source{{Network: netip.MustParsePrefix("203.0.113.0/25")}},
		InputOn:   map[string]policy.Verdict{"eth1": policy.Accept},
		ICMP:      policy.ICMP{Mode: policy.ICMPList, Types: []policy.ICMPType{icmpType(t, "echo-request")}},
		ICMPOn:    map[string]policy.ICMP{"wg*": {Mode: policy.ICMPDrop}},
		InvalidOn: map[string]policy.InvalidPolicy{"eth1": policy.InvalidAccept},
		Open: []policy.Rule{{
			Ports: []policy.PortRange{{Protocol: policy.TCP, First: 80, Last: 90}},
			On:    []string{"eth0"},
			// Of both families, so that a rule with another address in one place still lets something in.
			From:   prefixes("192.0.2.0/24", "2001:db8:2::/48"),
			Except: prefixes("192.0.2.7/32"),
			To:     prefixes("198.51.100.0/24", "2001:db8:1::/48"),
			Limit:  policy.Limit{Count: 6, Per: time.Minute, Burst: 7},
		}, {
			Forward: true,
			Ports:   []policy.PortRange{{Protocol: policy.UDP, First: 53, Last: 54}},
			On:      []string{"eth1"},
			From:    prefixes("192.0.2.0/24", "2001:db8:2::/48"),
			Except:  prefixes("192.0.2.7/32"),
			To:      prefixes("198.51.100.0/24", "2001:db8:1::/48"),
			Limit:   policy.Limit{Count: 6, Per: time.Minute, Burst: 7},
		}},
		MaxFlows: 2048,
		Timeouts: map[string]time.Duration{"udp": 45 * time.Second},
	}
}

// Variant is a policy that differs from [Base] in one field.
type Variant struct {
	Field  string // such as Open[0].Ports[0].Last
	Policy *policy.Policy
}

// Variants returns policies that differ from [Base] in each field in turn. A
// field that it does not know how to change fails the test.
func Variants(t testing.TB) []Variant {
	t.Helper()
	w := walker{t: t}
	w.walk("", reflect.ValueOf(Base(t)).Elem(), func(p *policy.Policy) reflect.Value { return reflect.ValueOf(p).Elem() })
	return w.out
}

// notCompared are fields that change nothing of what a policy means.
var notCompared = map[string]string{
	"Rule.what":    "the text of the ports, which says how they are written",
	"Rule.lists":   "the names of lists, which say how the sources are written",
	"Policy.Lists": "networks by names, which count through what names them",
	"Rule.was":     "the text that they had",
}

type walker struct {
	t   testing.TB
	out []Variant
}

// place finds a field in a policy.
type place func(*policy.Policy) reflect.Value

// emit adds the policy in which a field is changed.
func (w *walker) emit(path string, at place, change func(v reflect.Value)) {
	p := Base(w.t)
	change(at(p))
	w.out = append(w.out, Variant{path, p})
}

func (w *walker) set(path string, at place, value any) {
	w.emit(path, at, func(v reflect.Value) { v.Set(reflect.ValueOf(value).Convert(v.Type())) })
}

func (w *walker) walk(path string, v reflect.Value, at place) {
	switch known := v.Interface().(type) {
	case netip.Prefix:
		w.set(path, at, netip.MustParsePrefix("192.0.2.0/25"))
		w.set(path, at, netip.MustParsePrefix("2001:db8::/32"))
		return
	case policy.Source:
		other := policy.Source{Network: netip.MustParsePrefix("192.0.2.0/26")}
		if known.List != "" {
			other = policy.Source{List: "worse", Holds: policy.NewNetworks([]netip.Prefix{netip.MustParsePrefix("2001:db8:bad::/48")})}
		}
		w.set(path, at, other)
		return
	case policy.ICMPType:
		w.set(path, at, icmpType(w.t, "ipv4/8"))
		w.set(path, at, icmpType(w.t, "timestamp-request"))
		return
	case policy.ICMPMode:
		w.set(path, at, policy.ICMPAccept)
		w.set(path, at, policy.ICMPDrop)
		return
	case policy.Log:
		w.set(path, at, policy.LogDrops)
		w.set(path, at, known^1)
		return
	case policy.Protocol:
		for _, p := range policy.Protocols {
			if p != known {
				w.set(path, at, p)
			}
		}
		return
	case map[string]policy.Verdict:
		onInterfaces(w, path, at, policy.Drop, policy.Reject)
		return
	case map[string]policy.ICMP:
		onInterfaces(w, path, at, policy.ICMP{}, policy.ICMP{Mode: policy.ICMPList, Types: []policy.ICMPType{icmpType(w.t, "ipv4/8")}})
		return
	case map[string]policy.InvalidPolicy:
		onInterfaces(w, path, at, policy.InvalidLog, policy.InvalidDrop)
		return
	case time.Duration: // of a limit
		w.set(path, at, time.Hour)
		return
	case map[string]time.Duration:
		for _, timeout := range policy.Timeouts {
			w.emit(path+"["+timeout.Name+"]", at, func(v reflect.Value) {
				v.SetMapIndex(reflect.ValueOf(timeout.Name), reflect.ValueOf(timeout.Default+7*time.Second))
			})
		}
		return
	case encoding.TextMarshaler: // one of a few words
		for n := range 256 {
			word := reflect.ValueOf(uint8(n)).Convert(v.Type())
			if _, err := word.Interface().(encoding.TextMarshaler).MarshalText(); err == nil && !word.Equal(v) {
				w.set(path, at, word.Interface())
			}
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if _, skip := notCompared[v.Type().Name()+"."+field.Name]; skip {
				continue
			}
			if !field.IsExported() {
				w.t.Fatalf("%s.%s is not exported: teach this package to change a %s, or say that it means nothing", path, field.Name, v.Type())
			}
			name := field.Name
			if path != "" {
				name = path + "." + name
			}
			w.walk(name, v.Field(i), func(p *policy.Policy) reflect.Value { return at(p).Field(i) })
		}
	case reflect.Slice:
		if v.Len() == 0 {
			w.t.Fatalf("%s is empty: give it an entry in Base", path)
		}
		if v.Type() != reflect.TypeFor[[]policy.PortRange]() { // a rule without ports is none
			w.emit(path, at, func(v reflect.Value) { v.SetZero() })
		}
		for i := range v.Len() {
			w.walk(fmt.Sprintf("%s[%d]", path, i), v.Index(i), func(p *policy.Policy) reflect.Value { return at(p).Index(i) })
		}
	case reflect.Bool:
		w.set(path, at, !v.Bool())
	case reflect.String:
		w.set(path, at, v.String()+"1")
	case reflect.Int:
		w.set(path, at, v.Int()+1)
	case reflect.Uint16, reflect.Uint32:
		w.set(path, at, v.Uint()+1)
	default:
		w.t.Fatalf("%s is a %s, which this package cannot change: teach it", path, v.Type())
	}
}

// onInterfaces changes what is said for single interfaces.
func onInterfaces[T any](w *walker, path string, at place, values ...T) {
	w.emit(path, at, func(v reflect.Value) { v.SetZero() })
	for _, value := range values {
		for _, name := range []string{"eth1", "wg*", "more"} {
			w.emit(fmt.Sprintf("%s[%s]", path, name), at, func(v reflect.Value) {
				v.SetMapIndex(reflect.ValueOf(name), reflect.ValueOf(value))
			})
		}
	}
}

func icmpType(t testing.TB, text string) policy.ICMPType {
	t.Helper()
	out, err := policy.ParseICMPType(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
