// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// RememberServices makes names of services that [ServicesFile] no longer has
// stand for what rules in force were opened by them, until [ForgetServices]. So
// a file that has such a name can still be edited. It reports whether there are
// any.
func RememberServices(inForce []Rule) bool {
	gone := make(map[string][]servicePort)
	services := defaultServices()
	for _, r := range inForce {
		name, _, _ := strings.Cut(r.was, "/")
		if name == "" {
			continue
		}
		if listed, _ := services.lookup(name); listed != "" && gone[name] == nil {
			continue // it has another meaning now
		}
		for _, p := range r.Ports {
			port := servicePort{p.Protocol.String(), p.First}
			if !slices.Contains(gone[name], port) {
				gone[name] = append(gone[name], port)
			}
		}
	}
	if len(gone) == 0 {
		return false
	}
	knownServices.Store(&Services{text: services.text, gone: gone})
	return true
}

// SpellGone returns the text of a policy file with the ports in the place of
// services that [ServicesFile] no longer has, as [RememberServices] knows them.
func (r Reader) SpellGone(filename string, data []byte) ([]byte, error) {
	p, err := r.Parse(filename, data)
	if err != nil {
		return nil, err
	}
	services := defaultServices()
	for _, rule := range p.Open {
		name, _, _ := strings.Cut(rule.what, "/")
		if services.gone[name] == nil {
			continue
		}
		if data, err = r.spell(filename, data, rule); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// spell writes the ports of a rule where the text of a policy file names a
// service, and leaves all else of its line as it is.
func (r Reader) spell(filename string, data []byte, rule Rule) ([]byte, error) {
	d, before, err := r.document(filename, data)
	if err != nil {
		return nil, err
	}
	numbers := rule
	numbers.what = ""
	without, _, err := before.WithoutRule(rule)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filename, err)
	}
	want := without
	var spelled []Rule
	for _, one := range numbers.Spelled() {
		added := false
		if want, added = want.WithRule(one); added { // and is not there already
			spelled = append(spelled, one)
		}
	}
	if len(spelled) == 0 {
		return r.RemoveRule(filename, data, rule)
	}
	_, list := d.find([]string{"open"})
	i := slices.IndexFunc(list.Content, func(item *yaml.Node) bool {
		have, err := d.names.ParseRule(item.Value)
		return err == nil && have.Equal(rule)
	})
	if i < 0 {
		return nil, fmt.Errorf("%s: rule %s is not found in the text", filename, quote(rule.String()))
	}
	item := list.Content[i]
	inFlow := list.Style&yaml.FlowStyle != 0
	text := func(i int, inFlow bool) string { return quoteRule(spelled[i].String(), inFlow) }
	start, end, _ := d.span(item)
	pieces := []piece{{start, end, text(0, inFlow)}}
	others := func(i int, inFlow bool) string { return text(i+1, inFlow) }
	if inFlow {
		for i := range spelled[1:] {
			pieces[0].text += ", " + others(i, true)
		}
	} else {
		pieces = append(pieces, d.put(d.lineEnd(end), d.entryLines(len(spelled)-1, strings.Repeat(" ", list.Column-1), others))...)
	}
	if data, err = d.apply(want, pieces); err != nil {
		return nil, fmt.Errorf("%s: write rule %s in numbers: %w", filename, quote(rule.String()), err)
	}
	return data, nil
}
