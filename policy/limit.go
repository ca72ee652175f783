// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The bounds of a [Limit].
const (
	maxLimitCount = 1_000_000
	maxBurst      = 65535
)

const rateExample = "write a number and a unit, such as 6/minute or 100/second"

// rateUnits are what a rate may count in. The first name of each is the one that
// is written.
var rateUnits = []struct {
	per   time.Duration
	names []string
}{
	{time.Second, []string{"second", "s", "sec", "seconds"}},
	{time.Minute, []string{"minute", "m", "min", "minutes"}},
	{time.Hour, []string{"hour", "h", "hours"}},
	{day, []string{"day", "d", "days"}},
}

// String returns the limit in the grammar of a rule, without the burst if that
// is the default one.
func (l Limit) String() string {
	unit := l.Per.String()
	for _, u := range rateUnits {
		if u.per == l.Per {
			unit = u.names[0]
		}
	}
	s := fmt.Sprintf("%d/%s", l.Count, unit)
	if l.Burst != DefaultBurst {
		s += fmt.Sprintf(" burst %d", l.Burst)
	}
	return s
}

// check says what makes numbers no limit.
func (l Limit) check() error {
	if l == (Limit{}) {
		return nil
	}
	known := false
	for _, u := range rateUnits {
		known = known || u.per == l.Per
	}
	if !known || l.Count == 0 || l.Count > maxLimitCount || l.Burst == 0 || l.Burst > maxBurst {
		return errors.New("has a limit that cannot be: " + l.String())
	}
	return nil
}

// perSecond returns the rate in lowest terms: count in so many seconds.
func (l Limit) perSecond() (count, seconds uint64) {
	count, seconds = uint64(l.Count), uint64(l.Per/time.Second)
	a, b := count, seconds
	for b != 0 {
		a, b = b, a%b
	}
	if a > 1 {
		count, seconds = count/a, seconds/a
	}
	return count, seconds
}

// allowsAll reports whether whatever keeps to the limit o keeps to l.
func (l Limit) allowsAll(o Limit) bool {
	if l.Count == 0 {
		return true
	}
	if o.Count == 0 {
		return false
	}
	c, s := l.perSecond()
	oc, os := o.perSecond()
	return c*os >= oc*s && l.Burst >= o.Burst
}

// parseRate reads RATE of "limit RATE".
func parseRate(w word) (l Limit, bad *RuleError) {
	number, unit, slash := strings.Cut(w.text, "/")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return Limit{}, w.errorf("bad rate %s: %s", quote(w.text), rateExample)
	}
	switch {
	case !slash || unit == "":
		if err != nil || n == 0 || n > maxLimitCount {
			return Limit{}, w.errorf("rate %s has no unit: %s", quote(w.text), rateExample)
		}
		return Limit{}, w.errorf("rate %s has no unit: write %d/second, %d/minute, %d/hour or %d/day", quote(w.text), n, n, n, n)
	case err != nil || n > maxLimitCount:
		return Limit{}, w.errorf("rate %s is out of range: write 1 to %d", quote(w.text), maxLimitCount)
	case n == 0:
		return Limit{}, w.errorf("rate %s lets nothing in: write 1 to %d, or close the rule", quote(w.text), maxLimitCount)
	}
	var names []string
	for _, u := range rateUnits {
		for _, name := range u.names {
			if strings.EqualFold(name, unit) {
				return Limit{Count: uint32(n), Per: u.per, Burst: DefaultBurst}, nil
			}
		}
		names = append(names, u.names[0])
	}
	return Limit{}, w.errorf("unknown unit %s in rate %s: %s", quote(unit), quote(w.text),
		didYouMean(unit, names, "write second, minute, hour or day"))
}

func parseBurst(w word) (uint32, *RuleError) {
	n, err := strconv.ParseUint(w.text, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, w.errorf("bad burst %s: write a number from 1 to %d", quote(w.text), maxBurst)
	}
	if err != nil || n == 0 || n > maxBurst {
		return 0, w.errorf("burst %s is out of range: write a number from 1 to %d", quote(w.text), maxBurst)
	}
	return uint32(n), nil
}
