// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"math"
	"time"
)

// Clock says what time the datapath's clock had, and the time of day just before.
type Clock struct {
	Time    time.Time
	Jiffies uint64
	HZ      uint32 // jiffies a second
}

// forever is the end of what has none.
const forever = math.MaxUint64

// jiffiesAt returns the first jiffy that is not before a time, or forever for the zero Time. What ends then lasts at most
// two jiffies too long, and never less than it should.
func (c Clock) jiffiesAt(t time.Time) uint64 {
	if t.IsZero() {
		return forever
	}
	left := t.Sub(c.Time)
	if left <= 0 {
		return c.Jiffies
	}
	seconds, rest := uint64(left/time.Second), uint64(left%time.Second)
	hz := uint64(c.HZ)
	// The clock has this jiffy since up to a jiffy ago.
	return c.Jiffies + seconds*hz + (rest*hz+uint64(time.Second)-1)/uint64(time.Second) + 1
}

// timeAt returns when the clock will have a number of jiffies, or the zero Time if it never will.
func (c Clock) timeAt(jiffies uint64) time.Time {
	if jiffies == forever {
		return time.Time{}
	}
	ahead := int64(jiffies - c.Jiffies)
	hz := int64(max(c.HZ, 1))
	return c.Time.Add(time.Duration(ahead/hz)*time.Second + time.Duration(ahead%hz)*time.Second/time.Duration(hz))
}
