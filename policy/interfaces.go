// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
)

// maxInterfaceName is how many bytes the kernel has for the name of a device.
const maxInterfaceName = 15

// parseInterface reads a name or a pattern of the interfaces to filter.
func parseInterface(name string) (string, error) {
	name, err := parsePattern(name)
	if err == nil && strings.Trim(name, "*") == "" {
		return "", fmt.Errorf("interface name %s stands for every interface: write names, or patterns such as wg*", quote(name))
	}
	return name, err
}

// parsePattern applies the rules that Linux has for the name of a device to a
// name or a pattern, and refuses what is meant as something else.
func parsePattern(name string) (string, error) {
	const example = "write a name such as eth0, or a pattern such as wg*"
	plain := strings.ReplaceAll(name, "*", "")
	switch {
	case name == "":
		return "", fmt.Errorf("empty interface name: %s", example)
	case name == "lo":
		return "", fmt.Errorf("interface %s is the loopback, which is never filtered: take it out", quote(name))
	case strings.HasSuffix(name, "+"):
		return "", fmt.Errorf("interface name %s is a pattern of iptables: write %s", quote(name), quote(strings.TrimSuffix(name, "+")+"*"))
	case strings.ContainsAny(name, "?%"):
		return "", fmt.Errorf("interface name %s is a pattern: write * for what varies, such as wg*", quote(name))
	case len(plain) > maxInterfaceName:
		return "", fmt.Errorf("interface name %s is %d bytes long: write at most %d", quote(name), len(plain), maxInterfaceName)
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

// pickPattern returns which of the patterns counts for an interface: its name
// itself, or else the longest pattern that stands for it, * not counted. Of two
// that are as long, the first in the alphabet counts.
func pickPattern[T any](patterns map[string]T, iface string) (value T, ok bool) {
	if value, ok = patterns[iface]; ok {
		return value, true
	}
	best := ""
	length := func(pattern string) int { return len(pattern) - strings.Count(pattern, "*") }
	for pattern, v := range patterns {
		if !MatchInterface(pattern, iface) {
			continue
		}
		if !ok || length(pattern) > length(best) || length(pattern) == length(best) && pattern < best {
			best, value, ok = pattern, v, true
		}
	}
	return value, ok
}

// withinPattern reports whether a pattern stands for every interface that
// another does: a * of the inner one is matched by a * only.
func withinPattern(inner, outer string) bool { return MatchInterface(outer, inner) }

// patternsOverlap reports whether there can be an interface that both patterns
// stand for.
func patternsOverlap(a, b string) bool {
	// least[j] is how many bytes a name has at least that the parts of a so far
	// and the first j of b stand for.
	const never = 1 << 10
	least := make([]int, len(b)+1)
	for i := range len(a) + 1 {
		diagonal := never // least of a shorter a and a shorter b
		for j := range len(b) + 1 {
			above := least[j] // of a shorter a
			best := never
			if i == 0 && j == 0 {
				best = 0
			}
			if i > 0 && j > 0 && a[i-1] == b[j-1] && a[i-1] != '*' {
				best = diagonal + 1
			}
			if i > 0 && a[i-1] == '*' {
				best = min(best, above) // stands for nothing
				if j > 0 {              // or for what b has
					best = min(best, least[j-1]+bytesOf(b[j-1]))
				}
			}
			if j > 0 && b[j-1] == '*' {
				best = min(best, least[j-1])
				if i > 0 {
					best = min(best, above+bytesOf(a[i-1]))
				}
			}
			diagonal, least[j] = above, min(best, never)
		}
	}
	return least[len(b)] <= maxInterfaceName
}

func bytesOf(c byte) int {
	if c == '*' {
		return 0
	}
	return 1
}
