// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// layouts says what the maps of each schema are like.
var layouts = map[string]string{
	"v2": "3540b0cfaae4cc07",
	"v3": "89553f092210225f", // words of tags count strays; a bit a port
	"v4": "7f99534dc3024e14", // MACs and addresses that are known
}

// A map that another version would read wrongly needs another schema.
func TestTheSchemaSaysWhatIsPinned(t *testing.T) {
	spec, err := bpf.LoadFirewall()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	format := btf.GoFormatter{}
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		if name == sectionConstants {
			continue // which each program has anew
		}
		m := spec.Maps[name]
		fmt.Fprintln(sum, name, m.Type, m.KeySize, m.ValueSize)
		for _, typ := range []btf.Type{m.Key, m.Value} {
			if section, ok := typ.(*btf.Datasec); ok {
				for _, v := range section.Vars {
					text, err := format.TypeDeclaration("v", v.Type.(*btf.Var).Type)
					fmt.Fprintln(sum, v.Type.TypeName(), v.Offset, v.Size, text, err)
				}
			} else if typ != nil {
				text, err := format.TypeDeclaration("v", typ)
				fmt.Fprintln(sum, text, err)
			}
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)[:8]); got != layouts[Schema] {
		t.Errorf("the maps are laid out as %s, those of schema %s as %s: give Schema another number, and write it here", got, Schema, layouts[Schema])
	}
}
