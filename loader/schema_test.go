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
	fw "github.com/portcullis-firewall/portcullis/maps"
)

// layouts says what the maps of each schema are like.
var layouts = map[string]string{
	"v2": "3540b0cfaae4cc07",
	"v3": "89553f092210225f", // words of tags count strays; a bit a port
	"v4": "0b639e38ad781654", // evicted flows are counted, flows are numbered and assured, the table counts them, programs note when they last ran; known MACs and addresses
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
	for _, reason := range fw.Reasons() {
		fmt.Fprintln(sum, reason.Verdict(), reason)
	}
	for _, state := range fw.FlowStates() {
		fmt.Fprintln(sum, state)
	}
	if got := hex.EncodeToString(sum.Sum(nil)[:8]); got != layouts[Schema] {
		t.Errorf("the maps are laid out as %s, those of schema %s as %s: give Schema another number, and write it here", got, Schema, layouts[Schema])
	}
}
