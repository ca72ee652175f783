// SPDX-License-Identifier: Apache-2.0

package packets

import (
	"cmp"
	"net/netip"
	"strconv"
	"time"

	"github.com/portcullis-firewall/portcullis/policy"
)

var units = map[time.Duration]string{time.Second: "second", time.Minute: "minute", time.Hour: "hour", 24 * time.Hour: "day"}

func limitText(l policy.Limit) string {
	return strconv.Itoa(int(l.Count)) + "/" + units[l.Per] + " burst " + strconv.Itoa(int(l.Burst))
}

// moreGenerous reports whether limit a decides where both hold: the higher rate, then the higher burst.
func moreGenerous(a, b policy.Limit) bool {
	if a.Count == 0 || b.Count == 0 {
		return a.Count == 0 && b.Count != 0
	}
	return cmp.Or(
		cmp.Compare(int64(a.Count)*int64(b.Per/time.Second), int64(b.Count)*int64(a.Per/time.Second)),
		cmp.Compare(a.Burst, b.Burst),
	) > 0
}

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func count(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
