// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"fmt"
	"testing"
)

func TestLeadsBehind(t *testing.T) {
	for to, want := range map[string]bool{"172.17.0.2:80": true, "172.17.0.2": true, "[fd00::2]:80": true, "fd00::2": true,
		"127.0.0.1:80": false, "[::1]:80": false, "port 8080": false, "this host": false, "": false} {
		if got := LeadsBehind(to); got != want {
			t.Errorf("%q leads behind this host: %t, want %t", to, got, want)
		}
	}
}

func TestList(t *testing.T) {
	text := func(n int) string { return fmt.Sprint(n) }
	for want, all := range map[string][]int{"1": {1, 1}, "1, 2, 3, 4, 5": {1, 2, 3, 4, 5, 5}, "1, 2, 3, 4, 5 and 2 more": {1, 2, 3, 4, 5, 6, 7}} {
		if got := list(all, text); got != want {
			t.Errorf("%v is listed as %q, want %q", all, got, want)
		}
	}
}
