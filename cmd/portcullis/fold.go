// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

// mostShown is how many addresses of a rule are shown for people.
const mostShown = 8

// folded returns the text of a rule with the number of its addresses in the place of a long list.
func folded(rule string) string {
	words := strings.Split(rule, " ")
	for i := 1; i < len(words); i++ {
		count := strings.Count(words[i], ",") + 1
		if count <= mostShown {
			continue
		}
		switch words[i-1] {
		case "from", "except":
			words[i] = fmt.Sprintf("%d networks", count)
		case "to":
			words[i] = fmt.Sprintf("%d addresses", count)
		}
	}
	return strings.Join(words, " ")
}
