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
	"v4": "0b639e38ad781654", // evicted flows are counted, flows are numbered and assured, the table counts them, programs note when they last ran; known MACs and addresses
	"v5": "c3f5b2720c6c15d1", // rules as numbers, in records of any length; they count apart from reasons
	"v6": "87d79eaa65aa495c", // protocols have entries, interfaces tables of their own; ranges say what rules come to; limits; rejected packets; what is routed; block lists, bans; a ledger with a page for each interface; who looks, the journal; whether it only watches
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
	// By these numbers counters and flows are read.
	for _, name := range []string{"reason", "flow_state", "mark"} {
		var enum *btf.Enum
		if err := spec.Types.TypeByName(name, &enum); err != nil {
			t.Fatal(err)
		}
		for _, v := range enum.Values {
			fmt.Fprintln(sum, name, v.Name, v.Value)
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)[:8]); got != layouts[Schema] {
		t.Errorf("the maps are laid out as %s, those of schema %s as %s: give Schema another number, and write it here", got, Schema, layouts[Schema])
	}
}
