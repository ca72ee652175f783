// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Facts are what a host says of itself, for policies that are written once for many. Each kind takes values of its type
// alone, so that no value can be more of a policy than its name says.
type Facts struct {
	Interfaces map[string]Words `json:"interfaces,omitempty" yaml:"interfaces"`
	Addresses  map[string]Words `json:"addresses,omitempty" yaml:"addresses"` // and networks
	Ports      map[string]Words `json:"ports,omitempty" yaml:"ports"`
}

// Words are one value or several.
type Words []string

// UnmarshalYAML reads one word, or a list of words.
func (w *Words) UnmarshalYAML(load func(any) error) error {
	var one string
	if err := load(&one); err == nil {
		*w = Words{one}
		return nil
	}
	var many []string
	err := load(&many)
	*w = many
	return err
}

// check returns why values are not of the type that they are to be of.
func (f *Facts) check() error {
	for _, k := range factKinds {
		for name, values := range k.of(f) {
			if !store.IsName(name) {
				return fmt.Errorf("%s.%s: a fact is named in lower-case letters, digits and hyphens", k.name, name)
			}
			if len(values) == 0 {
				return fmt.Errorf("%s.%s has no value", k.name, name)
			}
			for _, v := range values {
				if err := k.check(v); err != nil {
					return fmt.Errorf("%s.%s: %w", k.name, name, err)
				}
			}
		}
	}
	return nil
}

type factKind struct {
	name    string
	of      func(*Facts) map[string]Words
	check   func(string) error
	example func(i int) string // a value for a host that does not exist
}

var factKinds = []factKind{
	{"interfaces", func(f *Facts) map[string]Words { return f.Interfaces }, checkInterface, func(i int) string { return fmt.Sprintf("fact%d", i) }},
	{"addresses", func(f *Facts) map[string]Words { return f.Addresses }, checkAddress, func(i int) string { return fmt.Sprintf("192.0.2.%d", 1+i%254) }},
	{"ports", func(f *Facts) map[string]Words { return f.Ports }, checkPort, func(i int) string { return strconv.Itoa(60000 + i%5000) }},
}

func checkInterface(v string) error {
	rule, err := policy.ParseRule("1/tcp on " + v)
	if err != nil || len(rule.On) != 1 || rule.On[0] != v {
		return fmt.Errorf("%q is no name of an interface", v)
	}
	return nil
}

func checkAddress(v string) error {
	if _, err := netip.ParsePrefix(v); err == nil {
		return nil
	}
	if a, err := netip.ParseAddr(v); err == nil && a.Zone() == "" {
		return nil
	}
	return fmt.Errorf("%q is no address or network", v)
}

func checkPort(v string) error {
	if n, err := strconv.ParseUint(v, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != v {
		return fmt.Errorf("%q is no port: write 1 to 65535", v)
	}
	return nil
}

// Host is a host of a group, as the variables of a policy see it.
type Host struct {
	Name, Group string
	Facts       Facts
}

// value returns what a variable stands for.
func (h *Host) value(name string) (string, bool) {
	switch name {
	case "host.name":
		return h.Name, true
	case "host.group":
		return h.Group, true
	}
	kind, fact, _ := strings.Cut(name, ".")
	for _, k := range factKinds {
		if k.name == kind {
			values, ok := k.of(&h.Facts)[fact]
			return strings.Join(values, ","), ok
		}
	}
	return "", false
}

const (
	openMark, closeMark = "{{", "}}"
	variableHelp        = "write {{host.name}}, {{host.group}}, {{interfaces.NAME}}, {{addresses.NAME}} or {{ports.NAME}}"
)

// variable finds the first variable of a line.
func variable(line string) (before, name, after string, found bool, err error) {
	before, rest, found := strings.Cut(line, openMark)
	if !found {
		return line, "", "", false, nil
	}
	name, after, closed := strings.Cut(rest, closeMark)
	if !closed {
		return "", "", "", false, fmt.Errorf("a variable that begins with {{ has no end: %s", variableHelp)
	}
	return before, strings.TrimSpace(name), after, true, nil
}

// expand writes what they stand for in the place of variables. What comes in is not looked at again.
func (h *Host) expand(file, text string) (string, error) {
	if !strings.Contains(text, openMark) {
		return text, nil
	}
	var b strings.Builder
	n := 0
	for line := range strings.Lines(text) {
		n++
		for {
			before, name, after, found, err := variable(line)
			if err != nil {
				return "", fmt.Errorf("%s:%d: %w", file, n, err)
			}
			b.WriteString(before)
			if !found {
				break
			}
			value, known := h.value(name)
			if !known {
				kind, fact, _ := strings.Cut(name, ".")
				if slices.ContainsFunc(factKinds, func(k factKind) bool { return k.name == kind }) && store.IsName(fact) {
					return "", fmt.Errorf("%s:%d: host %s has no fact %s: add it under \"facts:\" of its fleet.yaml", file, n, h.Name, name)
				}
				return "", fmt.Errorf("%s:%d: unknown variable {{%s}}: %s", file, n, name, variableHelp)
			}
			b.WriteString(value)
			line = after
		}
	}
	return b.String(), nil
}

// ExampleHost returns a host that has some value for each fact that the texts name, to see whether they are policies at all.
func ExampleHost(group string, texts ...string) *Host {
	h := &Host{Name: "any-host", Group: group, Facts: Facts{map[string]Words{}, map[string]Words{}, map[string]Words{}}}
	i := 0
	for _, text := range texts {
		for line := range strings.Lines(text) {
			for {
				_, name, after, found, err := variable(line)
				if err != nil || !found {
					break
				}
				kind, fact, _ := strings.Cut(name, ".")
				for _, k := range factKinds {
					if k.name == kind && k.of(&h.Facts)[fact] == nil {
						k.of(&h.Facts)[fact] = Words{k.example(i)}
						i++
					}
				}
				line = after
			}
		}
	}
	return h
}
