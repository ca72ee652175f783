// SPDX-License-Identifier: Apache-2.0

// Package load puts the same traffic to netfilter, which runs the script that Portcullis replaces, and to Portcullis,
// with tables of the same size, and counts what each of them loses. The sides run one after the other, so that none
// takes time from another.
package load

import (
	"flag"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/loader"
)

var wanted = flag.String("load", "all", "`ROWS` by name, with commas in between, or all; and full for minutes of each")

// modes are those of Portcullis that are put under load; generic differs from native by where the hook is.
var modes = []loader.Mode{loader.ModeTC, loader.ModeNative}

// chosen are the rows that were asked for, and whether at full length.
func chosen(text string) (names []string, full bool) {
	names = strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == ' ' })
	full = slices.Contains(names, "full")
	names = slices.DeleteFunc(names, func(name string) bool { return name == "full" || name == "all" })
	return names, full
}

func TestPortcullisLosesNoMoreThanNetfilterDoes(t *testing.T) {
	names, full := chosen(*wanted)
	for _, r := range rows {
		if len(names) > 0 && !slices.Contains(names, r.name) {
			continue
		}
		names = slices.DeleteFunc(names, func(name string) bool { return name == r.name })
		size := r.short
		if full {
			size = r.full
		}
		t.Run(r.name, func(t *testing.T) { r.compare(t, size) })
		if len(names) == 0 && *wanted != "all" && *wanted != "full" {
			break
		}
	}
	if len(names) > 0 {
		t.Errorf("there is no row %s", strings.Join(names, ", "))
	}
}

// compare runs a row on all sides. What loses more than netfilter is run again, beside netfilter again.
func (r row) compare(t *testing.T, size scale) {
	ours := make(map[loader.Mode]outcome)
	measure := r.on(t, netfilter, size)
	if r.fills && measure.entries < size.table*8/10 {
		t.Errorf("netfilter holds %d entries of %d: the load does not fill its table", measure.entries, size.table)
	}
	for _, mode := range modes {
		ours[mode] = r.on(t, string(mode), size)
	}
	report(r, size, measure, ours)
	for _, mode := range modes {
		if !r.worse(measure, ours[mode]) {
			continue
		}
		t.Logf("%s: lost %d of %d, netfilter %d of %d: once more", mode, ours[mode].lost, ours[mode].sent, measure.lost,
			measure.sent)
		measure, again := r.on(t, netfilter, size), r.on(t, string(mode), size)
		if r.worse(measure, again) {
			t.Errorf("%s: lost %d of %d %s; netfilter %d", mode, again.lost, again.sent, r.what, measure.lost)
		}
	}
}

// on runs a row on one side.
func (r row) on(t *testing.T, name string, size scale) (result outcome) {
	t.Helper()
	ok := t.Run(name, func(t *testing.T) {
		s := newSide(t, name, r, size.table)
		result = r.run(t, s, size)
		t.Logf("%s: %+v", name, result)
	})
	if !ok {
		t.FailNow()
	}
	if result.sent == 0 {
		t.SkipNow()
	}
	return result
}

// worse reports whether ours is a greater loss than netfilter's and than chance: two, or one of a thousand.
func (r row) worse(measure, ours outcome) bool {
	allowed := measure.lost
	if r.none {
		allowed = 0
	}
	if !r.exact {
		allowed += max(2, ours.sent/1000)
	}
	return ours.lost > allowed
}

func TestWorse(t *testing.T) {
	for _, c := range []struct {
		exact      bool
		none       bool
		sent       int
		theirs     int
		ours       int
		isTooMuch  bool
		whatItSays string
	}{
		{true, false, 100, 0, 0, false, "nobody loses"},
		{true, false, 100, 0, 1, true, "one of an exact row"},
		{false, false, 100, 0, 2, false, "two by chance"},
		{false, false, 100, 0, 3, true, "three of a hundred"},
		{false, false, 10000, 5, 15, false, "one of a thousand more"},
		{false, false, 10000, 5, 16, true, "and one"},
		{false, false, 10000, 500, 0, false, "less than netfilter"},
		{false, true, 10000, 500, 10, false, "nothing but by chance"},
		{false, true, 10000, 500, 11, true, "less than netfilter, where nothing is to be lost"},
	} {
		r := row{exact: c.exact, none: c.none}
		if got := r.worse(outcome{c.sent, c.theirs, 0}, outcome{c.sent, c.ours, 0}); got != c.isTooMuch {
			t.Errorf("%s: too much: %t", c.whatItSays, got)
		}
	}
}
