// SPDX-License-Identifier: Apache-2.0

package policy

import "go.yaml.in/yaml/v4"

// RuleLine is where a rule stands in a policy file.
type RuleLine struct {
	Line int
	Text string // as it is written there
}

// RuleLines returns where the rules of a policy file stand, by their keys.
func (r Reader) RuleLines(filename string, data []byte) (map[RuleKey]RuleLine, error) {
	d, _, err := r.document(filename, data)
	if err != nil {
		return nil, err
	}
	lines := make(map[RuleKey]RuleLine)
	for _, path := range [][]string{{"open"}, {"forward", "open"}} {
		_, list := d.find(path)
		if list == nil || list.Kind != yaml.SequenceNode {
			continue
		}
		names := d.names
		names.Forward = len(path) > 1
		for _, item := range list.Content {
			if rule, err := names.ParseRule(item.Value); err == nil {
				lines[rule.Key()] = RuleLine{item.Line, item.Value}
			}
		}
	}
	return lines, nil
}
