// SPDX-License-Identifier: Apache-2.0

// Package load puts the same traffic to netfilter, which runs the script that Portcullis replaces, and to Portcullis,
// with tables of the same size, and counts what each of them loses. The sides run one after the other, so that none
// takes time from another, unless time has no part in a row.
package load

import (
	"flag"
	"slices"
	"strings"
	"sync"
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
	for _, name := range names {
		if !slices.ContainsFunc(rows, func(r row) bool { return r.name == name }) {
			t.Fatalf("there is no row %s", name)
		}
	}
	for _, r := range rows {
		if len(names) > 0 && !slices.Contains(names, r.name) {
			continue
		}
		size := r.short
		if full {
			size = r.full
		}
		t.Run(r.name, func(t *testing.T) { r.compare(t, size) })
	}
}

// compare runs a row on all sides. What loses more than netfilter is run again, beside netfilter again.
func (r row) compare(t *testing.T, size scale) {
	names := []string{netfilter}
	for _, mode := range modes {
		names = append(names, string(mode))
	}
	first := r.on(t, size, names)
	if r.fills && first[netfilter].entries < size.table*8/10 {
		t.Errorf("netfilter holds %d entries of %d: the load does not fill its table", first[netfilter].entries, size.table)
	}
	report(r, size, first)
	names = slices.DeleteFunc(names, func(name string) bool {
		return name != netfilter && !r.worse(first[netfilter], first[name])
	})
	if len(names) == 1 {
		return
	}
	t.Logf("%s lose more than netfilter: once more", strings.Join(names[1:], " and "))
	second := r.on(t, size, names)
	for _, name := range names[1:] {
		if r.worse(second[netfilter], second[name]) {
			t.Errorf("%s: lost %d and %d of %d %s; netfilter %d and %d", name, first[name].lost, second[name].lost,
				second[name].sent, r.what, first[netfilter].lost, second[netfilter].lost)
		}
	}
}

// on runs a row on some sides. Where chance has no part, they do not disturb each other and run at the same time.
func (r row) on(t *testing.T, size scale, names []string) map[string]outcome {
	t.Helper()
	var lock sync.Mutex
	var wait sync.WaitGroup
	results := make(map[string]outcome)
	for _, name := range names {
		work := func() {
			t.Run(name, func(t *testing.T) {
				result := r.run(t, newSide(t, name, r, size.table), size)
				t.Logf("%s: %+v", name, result)
				lock.Lock()
				defer lock.Unlock()
				results[name] = result
			})
		}
		if r.exact {
			wait.Go(work)
		} else {
			work()
		}
	}
	wait.Wait()
	switch {
	case t.Failed():
		t.FailNow()
	case len(results) < len(names):
		t.SkipNow() // as a side is
	}
	return results
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
