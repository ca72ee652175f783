// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"testing"
)

func TestNoEffectTexts(t *testing.T) {
	filtered := []string{"eth0", "eth1", "wg*"}
	for text, want := range map[string][]string{
		"open: [http on eth0, https on wg7, smtp on wg*, ssh on et*, domain on eth*]": nil,
		"input: {default: drop, eth1: reject, wg0: accept}":                           nil,
		"open: [http on eht1]": {`"http on eht1" has no effect on "eht1", which is not filtered: did you mean "eth1"?`},
		"open: [http on eth9, 'https on eth0,eth9', smtp]": {
			`"http on eth9" and 1 more have no effect on "eth9", which is not filtered: add it to "interfaces", or leave it out`,
		},
		"open: [http on ppp*]":     {`"http on ppp*" has no effect on "ppp*", which matches no filtered interface: add it to "interfaces", or leave it out`},
		"input: {defualt: reject}": {`"input" has no effect on "defualt", which is not filtered: did you mean "default"?`},
		"icmp: {br0: drop}":        {`"icmp" has no effect on "br0", which is not filtered: add it to "interfaces", or leave it out`},
		"invalid: {ppp0: accept}":  {`"invalid" has no effect on "ppp0", which is not filtered: add it to "interfaces", or leave it out`},
		"open: ['1/tcp on a,b,c,d']": {
			`"1/tcp on a,b,c,d" has no effect on "a", which is not filtered: add it to "interfaces", or leave it out`,
			`"1/tcp on a,b,c,d" has no effect on "b", which is not filtered: add it to "interfaces", or leave it out`,
			`"1/tcp on a,b,c,d" has no effect on "c", which is not filtered: add it to "interfaces", or leave it out`,
			"interfaces that rules or settings name and that are not filtered: 1 more",
		},
	} {
		p, err := Parse("p.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := p.NoEffectTexts(filtered); !slices.Equal(got, want) {
			t.Errorf("%s: %q", text, got)
		}
	}
}
