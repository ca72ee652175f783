// SPDX-License-Identifier: Apache-2.0

package maps

import "github.com/cilium/ebpf"

// Fit gives the maps in spec the sizes that those of the set have, so that a program can be loaded over them.
func (s *Set) Fit(spec *ebpf.CollectionSpec) {
	for name, m := range s.byName {
		spec.Maps[name].MaxEntries = m.MaxEntries()
	}
}
