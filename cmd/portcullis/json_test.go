// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding"
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/explain"
	"github.com/portcullis-firewall/portcullis/firewall/propose"
)

const jsonPage = "../../docs/json.md"

// jsonKeys returns the keys of a type in JSON: rules[].packets.
func jsonKeys(of reflect.Type) (keys []string) {
	for i := range of.NumField() {
		f := of.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		t, list := f.Type, ""
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			if t.Implements(reflect.TypeFor[json.Marshaler]()) {
				break
			}
			if t.Kind() == reflect.Slice {
				list = "[]"
			}
			t = t.Elem()
		}
		switch {
		case t.Kind() != reflect.Struct || t.Implements(reflect.TypeFor[encoding.TextMarshaler]()): // a time, an address
			keys = append(keys, name)
		case f.Anonymous && name == "":
			keys = append(keys, jsonKeys(t)...)
		default:
			for _, inner := range jsonKeys(t) {
				keys = append(keys, name+list+"."+inner)
			}
		}
	}
	return keys
}

// The page of keys has each of them, and no other.
func TestKeysOfJSONAreExplained(t *testing.T) {
	text, err := os.ReadFile(jsonPage)
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| .+ \\|$")
	for command, view := range map[string]any{
		"status": firewall.Status{}, "status --check": ledgerView{}, "check": checkView{}, "doctor": doctorView{}, "audit": auditView{},
		"apply": firewall.ApplyReport{}, "diff": firewall.DiffReport{}, "open": firewall.OpenReport{}, "close": firewall.CloseReport{},
		"flows": flowView{}, "log": logView{}, "monitor": shownView{}, "watch": propose.Proposal{}, "explain": explain.Answer{}, "import": importView{},
	} {
		_, section, found := strings.Cut(string(text), "\n## "+command+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		var got []string
		for _, match := range row.FindAllStringSubmatch(section, -1) {
			got = append(got, match[1])
		}
		want := jsonKeys(reflect.TypeOf(view))
		slices.Sort(got)
		slices.Sort(want)
		if !found || len(want) < 5 || !slices.Equal(got, want) {
			t.Errorf("%s: %s explains\n%q\nwant\n%q", jsonPage, command, got, want)
		}
	}
}
