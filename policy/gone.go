// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
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
		if data, err = r.RemoveRule(filename, data, rule); err != nil {
			return nil, err
		}
		rule.what = ""
		for _, spelled := range rule.Spelled() {
			if data, err = r.InsertRule(filename, data, spelled); err != nil {
				return nil, err
			}
		}
	}
	return data, nil
}
