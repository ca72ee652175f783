// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// PolicyFile is what errors call the policy of a bundle.
const PolicyFile = "the group's policy"

// Render returns the text of the policy file of a host: the policy, then what the group has of its own, then what the host
// has, each with the host's facts in the place of variables. A later layer adds to open, block and trust, takes out of open
// what its close names, replaces single lists, timeouts and flows, and every other key whole. listPath returns where the
// list of a digest is.
func (b *Bundle) Render(h *Host, listPath func(digest string) string) (string, error) {
	layers := []struct{ name, text string }{{PolicyFile, b.Policy}}
	if b.Layer != "" {
		layers = append(layers, struct{ name, text string }{"the group's layer", b.Layer})
	}
	if text, ok := b.Hosts[h.Name]; ok {
		layers = append(layers, struct{ name, text string }{"the layer of host " + h.Name, text})
	}
	for i := range layers {
		var err error
		if layers[i].text, err = h.expand(layers[i].name, layers[i].text); err != nil {
			return "", err
		}
	}
	if len(layers) == 1 && len(b.Lists) == 0 {
		return layers[0].text, nil
	}
	var policy *yaml.Node
	for _, l := range layers {
		document, err := parseMapping(l.name, l.text)
		if err != nil {
			return "", err
		}
		if policy == nil {
			policy = document
			continue
		}
		if err := merge(policy.Content[0], document.Content[0]); err != nil {
			return "", fmt.Errorf("%s: %w", l.name, err)
		}
	}
	if err := eachListFile(policy.Content[0], func(file *yaml.Node) error {
		digest, ok := b.Lists[file.Value]
		if !ok {
			return nil // a file of the host
		}
		file.Value, file.Style = listPath(digest), yaml.DoubleQuotedStyle
		return nil
	}); err != nil {
		return "", err
	}
	text, err := yaml.Marshal(policy)
	return string(text), err
}

// parseMapping reads a layer.
func parseMapping(name, text string) (*yaml.Node, error) {
	document := new(yaml.Node)
	if err := yaml.Unmarshal([]byte(text), document); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if document.Kind != yaml.DocumentNode || len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s: it has no keys: write {} for a layer that changes nothing", name)
	}
	return document, nil
}

// at returns the value of a key, or nil.
func at(mapping *yaml.Node, key string) *yaml.Node {
	if mapping == nil || mapping.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

func merge(to, layer *yaml.Node) error {
	for i := 0; i+1 < len(layer.Content); i += 2 {
		key, value := layer.Content[i], layer.Content[i+1]
		have := at(to, key.Value)
		switch key.Value {
		case "close":
			if err := closeRules(at(to, "open"), value); err != nil {
				return err
			}
			continue
		case "open", "block", "trust":
			if have != nil && have.Kind == yaml.SequenceNode && value.Kind == yaml.SequenceNode {
				for _, item := range value.Content {
					if !slices.ContainsFunc(have.Content, func(n *yaml.Node) bool { return sameRule(n, item) }) {
						have.Content = append(have.Content, item)
					}
				}
				continue
			}
		case "lists", "timeouts", "flows":
			if have != nil && have.Kind == yaml.MappingNode && value.Kind == yaml.MappingNode {
				for i := 0; i+1 < len(value.Content); i += 2 {
					set(have, value.Content[i], value.Content[i+1])
				}
				continue
			}
		}
		set(to, key, value)
	}
	return nil
}

func set(mapping, key, value *yaml.Node) {
	if have := at(mapping, key.Value); have != nil {
		*have = *value
		return
	}
	mapping.Content = append(mapping.Content, key, value)
}

func sameRule(a, b *yaml.Node) bool {
	return a.Kind == yaml.ScalarNode && b.Kind == yaml.ScalarNode && strings.Join(strings.Fields(a.Value), " ") == strings.Join(strings.Fields(b.Value), " ")
}

// closeRules takes rules out of open. One that is not there is an error: it has been reworded, and would stay open.
func closeRules(open, rules *yaml.Node) error {
	if rules.Kind != yaml.SequenceNode {
		return fmt.Errorf("line %d: close is a list of rules, as the layers before have them", rules.Line)
	}
	for _, r := range rules.Content {
		i := -1
		if open != nil {
			i = slices.IndexFunc(open.Content, func(n *yaml.Node) bool { return sameRule(n, r) })
		}
		if i < 0 {
			return fmt.Errorf("line %d: close: no layer before opens %q: write the rule as it is written there", r.Line, r.Value)
		}
		open.Content = slices.Delete(open.Content, i, i+1)
	}
	return nil
}

// eachListFile visits the paths of list files in a policy.
func eachListFile(policy *yaml.Node, visit func(file *yaml.Node) error) error {
	lists := at(policy, "lists")
	if lists == nil || lists.Kind != yaml.MappingNode {
		return nil
	}
	var errs []error
	for i := 1; i < len(lists.Content); i += 2 {
		if file := at(lists.Content[i], "file"); file != nil && file.Kind == yaml.ScalarNode {
			errs = append(errs, visit(file))
		}
	}
	return errors.Join(errs...)
}

// ListFiles returns the paths of the list files that a layer names.
func ListFiles(name, text string) (files []string, err error) {
	// What a variable stands for is no part of a path to look for.
	h := ExampleHost("any-group", text)
	if text, err = h.expand(name, text); err != nil {
		return nil, err
	}
	document, err := parseMapping(name, text)
	if err != nil {
		return nil, err
	}
	err = eachListFile(document.Content[0], func(file *yaml.Node) error {
		files = append(files, file.Value)
		return nil
	})
	return files, err
}
