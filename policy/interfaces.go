// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
)

// parseInterface applies the rules that Linux has for the name of a device, and
// refuses what is meant as something else.
func parseInterface(name string) (string, error) {
	const example = "write a name such as eth0"
	switch {
	case name == "":
		return "", fmt.Errorf("empty interface name: %s", example)
	case name == "lo":
		return "", fmt.Errorf("interface %s is the loopback, which is never filtered: take it out", quote(name))
	case strings.ContainsAny(name, "*?%") || strings.HasSuffix(name, "+"):
		return "", fmt.Errorf("interface name %s is a pattern: write each name, such as [eth0, eth1]", quote(name))
	case len(name) > 15:
		return "", fmt.Errorf("interface name %s is %d bytes long: write at most 15", quote(name), len(name))
	case name == "." || name == "..":
		return "", fmt.Errorf("interface name %s is not possible: %s", quote(name), example)
	}
	for _, c := range []byte(name) {
		// 0xa0 is a space to the kernel, which reads names as Latin-1.
		if strings.IndexByte("/: \t\n\v\f\r\xa0", c) >= 0 {
			return "", fmt.Errorf("interface name %s has %q in it: %s", quote(name), rune(c), example)
		}
	}
	return name, nil
}
