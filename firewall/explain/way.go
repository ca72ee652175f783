// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"net/netip"

	"github.com/portcullis-firewall/portcullis/host/netfilter"
	"github.com/portcullis-firewall/portcullis/maps"
)

// warnOfWay warns of what is not routed as who asks probably thinks.
func (e *Explainer) warnOfWay(a *Answer, w What, to netip.Addr) {
	if a.Forward {
		if route, err := e.fw.RouteTo(to); err == nil && !route.Here && len(route.Interfaces) > 0 && route.Interfaces[0] == a.Interface {
			a.Warnings = append(a.Warnings, fmt.Sprintf("the way to %s leads out by %s again, by which the packet comes in: such packets normally do not come through this host", to, a.Interface))
		}
		return
	}
	if a.Verdict != maps.Drop || a.Step <= int(maps.StepForward) && a.Still == nil || w.Port == 0 {
		return
	}
	ruleset, _ := netfilter.Read(e.ctx) // an error comes with what was read before
	if to := translation(ruleset.Published, w, to); to != "" {
		a.Warnings = append(a.Warnings, fmt.Sprintf("netfilter's DNAT leads %s to %s, after the filter has seen it as a port of this host: \"open\" decides about it, and forward rules do not", w.Text, to))
	}
}

// translation returns where DNAT leads a packet, or "".
func translation(published []netfilter.Published, w What, to netip.Addr) string {
	for _, p := range published {
		if p.Protocol == w.Protocol && p.First <= w.Port && w.Port <= p.Last && (!p.Destination.IsValid() || p.Destination.Contains(to)) {
			return p.To
		}
	}
	return ""
}
