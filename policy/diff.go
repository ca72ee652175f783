// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strconv"
)

// Change is one difference between two policies.
type Change struct {
	Op       byte   // '+' added, '-' removed, '~' changed
	Key      string // interface, input, forward, icmp, open, invalid, flows max or timeout NAME
	Old, New string // as the policies write it; Old is empty for '+', New for '-'
}

// String returns the change as "+ open 80/tcp" or "~ icmp: accept -> drop".
func (c Change) String() string {
	switch c.Op {
	case '+':
		return "+ " + c.Key + " " + c.New
	case '-':
		return "- " + c.Key + " " + c.Old
	}
	return fmt.Sprintf("%c %s: %s -> %s", c.Op, c.Key, c.Old, c.New)
}

// Diff lists what is different in meaning, in the order of the policy file.
// There is none if and only if the policies are Equal.
func Diff(old, new *Policy) []Change {
	var out []Change
	changed := func(key string, same bool, a, b string) {
		if !same {
			out = append(out, Change{'~', key, a, b})
		}
	}
	out = append(out, diffSets("interface", old.Interfaces, new.Interfaces, quoteName, func(s string) string { return s })...)
	changed("input", old.Input == new.Input, old.Input.String(), new.Input.String())
	changed("forward", old.Forward == new.Forward, old.Forward.String(), new.Forward.String())
	changed("icmp", old.ICMP.Equal(new.ICMP), old.ICMP.String(), new.ICMP.String())
	out = append(out, diffSets("open", old.Open, new.Open, Rule.String, Rule.key)...)
	changed("invalid", old.Invalid == new.Invalid, old.Invalid.String(), new.Invalid.String())
	changed("flows max", old.FlowLimit() == new.FlowLimit(), strconv.Itoa(old.FlowLimit()), strconv.Itoa(new.FlowLimit()))
	for _, t := range Timeouts {
		a, b := old.Timeout(t.Name), new.Timeout(t.Name)
		changed("timeout "+t.Name, a == b, formatTimeout(a), formatTimeout(b))
	}
	return out
}

func diffSets[T any](key string, old, new []T, text, identity func(T) string) []Change {
	var out []Change
	had, has := keySet(old, identity), keySet(new, identity)
	for _, v := range old {
		if !has[identity(v)] {
			out = append(out, Change{'-', key, text(v), ""})
		}
	}
	for _, v := range new {
		if !had[identity(v)] {
			out = append(out, Change{'+', key, "", text(v)})
		}
	}
	return slices.Compact(out)
}

func keySet[T any](list []T, identity func(T) string) map[string]bool {
	set := make(map[string]bool, len(list))
	for _, v := range list {
		set[identity(v)] = true
	}
	return set
}
