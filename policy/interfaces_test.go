// SPDX-License-Identifier: Apache-2.0

package policy

import "testing"

func TestInterfaceNames(t *testing.T) {
	for _, name := range []string{"eth0", "a", "abcdefghijklmno", "eth0.100", "br-1a2b", "vlan@eth0", "1", "...", "é", "lo0", "+a", "eth*", "*0", "w*g*0", "*abcdefghijklmno*", "l*"} {
		if got, err := parseInterface(name); err != nil || got != name {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"", ".", "..", "lo", "*", "**", "eth?", "eth%d", "eth+", "a/b", "a b", "a:b", "a\tb", "a\u00a0b", "abcdefghijklmnop"} {
		if got, err := parseInterface(name); err == nil {
			t.Errorf("%q is taken, as %q", name, got)
		}
	}
}
