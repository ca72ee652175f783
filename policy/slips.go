// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// clauseExamples show where a clause stands, to those who know it before the port, as in "ufw limit ssh".
var clauseExamples = map[string]string{
	"on": "http on eth0", "from": "ssh from 203.0.113.0/24", "except": "http except 203.0.113.9", "to": "http to 192.0.2.1",
	"limit": "ssh limit 6/minute", burstWord: "ssh limit 6/minute burst 10",
}

// verbs are words that begin a rule in other firewalls.
var verbs = struct{ opening, closing []string }{
	[]string{"allow", "accept", "permit", "open"},
	[]string{"deny", "drop", "reject", "block"},
}

// slip returns an error for what is written as other programs have it where a rule says what it opens, or nil.
func (w word) slip() *RuleError {
	text := strings.ToLower(w.text)
	switch {
	case slices.Contains(verbs.opening, text):
		return w.errorf("%s is not part of a rule: leave it out, as in \"ssh from 203.0.113.0/24\"", quote(w.text))
	case slices.Contains(verbs.closing, text):
		return w.errorf("%s cannot be a rule, since what no rule lets in is kept out: write whom to keep out after \"except\", as in \"http except 203.0.113.9\"", quote(w.text))
	case text == "any" || text == "*":
		return w.errorf("unknown service %s: write all for every port and protocol", quote(w.text))
	}
	if !strings.ContainsAny(text, ".:") {
		return nil
	}
	if _, bad := parsePrefix(w); bad == nil {
		return w.errorf("address %s where a port should be: write \"all from %s\" to let in everything from there; addresses of one rule are joined by commas, and in brackets such a rule needs quotes", quote(w.text), w.text)
	}
	return nil
}

// interfaceNames are names that hosts give to interfaces.
var interfaceNames = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(eth|en[opsx]|wl|ww|br|virbr|vmbr|docker|veth|bond|team|vlan|vxlan|wg|tun|tap|ppp|ib|dummy|tailscale)[a-z]*(-.*|[0-9].*|\*)$`)
})

// interfaceSlip is the error for an interface among the addresses of a clause.
func (w word) interfaceSlip(keyword string) *RuleError {
	if keyword == "to" {
		return w.errorf("bad address %s: a rule cannot say where a packet leaves; \"to\" takes addresses, and \"on\" says by which interface it comes in", quote(w.text))
	}
	if keyword == "from" {
		return w.errorf("bad address %s: did you mean %s?", quote(w.text), quote("on "+w.text))
	}
	return w.errorf("bad address %s: %s takes addresses, and \"on\" interfaces", quote(w.text), quote(keyword))
}

// addressSlip says how to write what other programs take for an address: a range, or "!" before one.
func addressSlip(text string) string {
	if rest, ok := strings.CutPrefix(text, "!"); ok && !strings.HasPrefix(rest, "!") {
		if _, bad := parsePrefix(word{text: rest}); bad == nil {
			return "write except " + rest
		}
	}
	const most = 10
	first, last, isRange := strings.Cut(text, "-")
	from, err := netip.ParseAddr(first)
	to, toErr := netip.ParseAddr(last)
	if !isRange || err != nil || toErr != nil || from.BitLen() != to.BitLen() || from.Zone()+to.Zone() != "" || to.Less(from) {
		return ""
	}
	prefixes := addrset.Prefixes([]addrset.Range{{First: from, Last: to}})
	if len(prefixes) > most {
		return ""
	}
	return "write " + joinPrefixes(prefixes)
}
