// SPDX-License-Identifier: Apache-2.0

package policy

import "fmt"

// Change is one difference between two policies.
type Change struct {
	Op       byte   // '+' added, '-' removed, '~' changed
	Key      string // what differs: a key of the file, such as input, or interface, flows max, timeout udp
	Old, New string // as the policies write it; Old is empty for '+', New for '-', and both are the rule if only its lists differ
}

// String returns the change as "+ open 80/tcp" or "~ icmp: accept -> drop".
func (c Change) String() string {
	switch c.Op {
	case '+':
		return "+ " + c.Key + " " + c.New
	case '-':
		return "- " + c.Key + " " + c.Old
	}
	if c.Old == c.New {
		return fmt.Sprintf("%c %s %s: its lists hold other networks", c.Op, c.Key, c.Old)
	}
	return fmt.Sprintf("%c %s: %s -> %s", c.Op, c.Key, c.Old, c.New)
}

// Diff lists what is different in meaning, in the order of the policy file.
// There is none if and only if the policies are Equal.
func Diff(old, new *Policy) []Change {
	var out []Change
	for _, k := range keys {
		out = append(out, joinAlike(k.diff(k.label, old, new))...)
	}
	return out
}

// joinAlike makes one change of a rule that goes and one that comes if they read
// alike: its lists hold something else.
func joinAlike(changes []Change) (out []Change) {
	come, stays := make(map[string]bool), make(map[string]bool)
	for _, c := range changes {
		if c.Op == '+' {
			come[c.Key+" "+c.New] = true
		}
	}
	for _, c := range changes {
		id := c.Key + " " + c.Old + c.New
		switch {
		case c.Op == '-' && come[id]:
			stays[id] = true
			out = append(out, Change{'~', c.Key, c.Old, c.Old})
		case c.Op != '+' || !stays[id]:
			out = append(out, c)
		}
	}
	return out
}
