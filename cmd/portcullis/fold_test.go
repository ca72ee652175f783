// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
)

func TestFolded(t *testing.T) {
	many := make([]string, 12)
	for i := range many {
		many[i] = fmt.Sprintf("198.51.100.%d", 2*i+1)
	}
	list := strings.Join(many, ",")
	for text, want := range map[string]string{
		"http":                            "http",
		"22/tcp from 192.0.2.1,192.0.2.7": "22/tcp from 192.0.2.1,192.0.2.7",
		"22/tcp on eth0 from " + list + " limit 6/minute":            "22/tcp on eth0 from 12 networks limit 6/minute",
		"22/tcp from 198.51.100.0/24 except " + list + " to " + list: "22/tcp from 198.51.100.0/24 except 12 networks to 12 addresses",
		"80,82,84,86,88,90,92,94,96,98/tcp":                          "80,82,84,86,88,90,92,94,96,98/tcp",
	} {
		rule, err := policy.ParseRule(text)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := folded(rule.String()); got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}
