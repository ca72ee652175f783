// SPDX-License-Identifier: Apache-2.0

package policy

import "fmt"

// Change is one difference between two policies.
type Change struct {
	Op       byte   // '+' added, '-' removed, '~' changed
	Key      string // what differs: a key of the file, such as input, or interface, flows max, timeout udp
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
	for _, k := range keys {
		out = append(out, k.diff(k.label, old, new)...)
	}
	return out
}
