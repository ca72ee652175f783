// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"slices"
	"testing"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// A reason that no ban has any more makes room for another one.
func TestBanReasonsAreUsedAgain(t *testing.T) {
	const places = 6 // four reasons, none, and others
	shared := make([]bpf.FirewallBanReason, places)
	var banned, forgotten []uint32
	looks := 0
	run := func() *banReasons {
		r := newBanReasons(shared)
		r.used = func(each func(uint32)) error {
			looks++
			for _, n := range banned {
				each(n)
			}
			return nil
		}
		r.forget = func(n uint32) error { forgotten = append(forgotten, n); return nil }
		return r
	}
	gives := func(r *banReasons, text string, want uint32) {
		t.Helper()
		if n, err := r.number(text); err != nil || n != want {
			t.Errorf("%q has the number %d, %v, want %d", text, n, err, want)
		}
	}
	r := run()
	for i, text := range []string{"", "a long one", "b", "c", "d", "e", OtherReasons, "b"} {
		gives(r, text, []uint32{0, 1, 2, 3, 4, 5, 5, 2}[i])
	}
	banned = []uint32{1, 2, 3, 4, 5, 0, 7}
	r = run()
	gives(r, "e", 5)
	gives(r, "f", 5)
	if looks != 2 || len(forgotten) > 0 {
		t.Errorf("it has looked %d times, and forgotten %d", looks, forgotten)
	}
	banned = []uint32{3, 3, 0}
	r = run()
	gives(r, "b", 2) // which is given again before it is found to be free
	gives(r, "e", 1)
	gives(r, "d", 4) // and this one after
	gives(r, "f", 5)
	gives(r, "e", 1)
	if looks != 3 || !slices.Equal(forgotten, []uint32{1}) {
		t.Errorf("it has looked %d times, and forgotten %d", looks, forgotten)
	}
	if got, want := run().texts, []string{"", "e", "b", "c", "d", OtherReasons}; !slices.Equal(got, want) {
		t.Errorf("the reasons are %q, want %q", got, want)
	}
}
