// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"strconv"

	"go.yaml.in/yaml/v4"
)

var enforceWords = []string{"true", "false"}

// enforceKind is the kind of the key enforce, which says the opposite of WatchOnly: the zero value of a policy drops.
var enforceKind = value{
	words: enforceWords,
	parse: func(d *document, p *Policy, at, v *yaml.Node) {
		d.word(quote(at.Value), at, v, enforceWords, func(text []byte) error {
			switch string(text) {
			case "true", "false":
				p.WatchOnly = string(text) == "false"
				return nil
			}
			return errors.New("unknown value")
		})
	},
	format: func(p *Policy) string { return strconv.FormatBool(!p.WatchOnly) },
}
