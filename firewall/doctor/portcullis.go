// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// policy examines the policy file.
func (e *examination) policy() {
	switch {
	case e.unseen("policy", e.Config, e.PolicyErr):
	case e.PolicyErr != nil:
		lines := strings.Split(strings.TrimSpace(e.PolicyErr.Error()), "\n")
		more := ""
		if len(lines) > 1 {
			more = fmt.Sprintf(" (and %d more)", len(lines)-1)
		}
		e.fail("policy", "%s%s", lines[0], more)
	case e.BuiltIn:
		e.ok("policy", "there is no %s: \"up\" opens what an sshd listens on", e.Config)
	default:
		e.ok("policy", "%s is good", e.Config)
	}
}

// unitName is the service that puts the filter up at boot.
const unitName = "portcullis.service"

func (e *examination) unit() {
	installed := e.files.exists("usr/local/lib/systemd/system/"+unitName, "usr/lib/systemd/system/"+unitName,
		"lib/systemd/system/"+unitName, "etc/systemd/system/"+unitName)
	switch {
	case !e.files.exists("run/systemd/system"):
		e.ok("boot", "this host does not run systemd")
	case e.files.exists("etc/systemd/system/*.wants/"+unitName, "etc/systemd/system/*.requires/"+unitName):
		e.ok("boot", "%s is enabled", unitName)
	case installed:
		e.note("boot", "nothing puts the filter up at boot").fix("systemctl enable " + unitName)
	default:
		e.note("boot", "nothing puts the filter up at boot: %s is not installed", unitName)
	}
}

// filter examines what runs.
func (e *examination) filter() {
	switch {
	case e.Running != nil:
		e.running()
	case e.unseen("filter", "whether the filter runs", e.FilterErr):
	case errors.Is(e.FilterErr, loader.ErrNotRunning):
		e.note("filter", "it does not run: every port is open").fix(e.up(e.Interfaces...))
		for _, name := range e.Unfiltered {
			e.note("filter", "\"up\" leaves %s unfiltered: what comes in by it reaches every port, unless it is named, too", quote.Name(name)).
				fix(e.up(append(slices.Clone(e.Interfaces), name)...))
		}
	case errors.Is(e.FilterErr, loader.ErrOtherNamespace):
		other := *e
		other.PinPath = path.Join(path.Dir(e.PinPath), "portcullis-"+e.namespace())
		e.fail("filter", "%s", e.FilterErr).fix(other.up(e.Interfaces...))
	case errors.Is(e.FilterErr, loader.ErrDamaged):
		e.fail("filter", "%s", e.FilterErr).fix(e.portcullis("up"))
	default:
		e.fail("filter", "%s", e.FilterErr)
	}
}

func (e *examination) running() {
	var filtered []string
	for _, i := range e.Running.Interfaces {
		filtered = append(filtered, i.Name)
	}
	e.ok("filter", "it runs on %s", quote.Names(filtered))
	if p := e.Running.Policy; p != nil && p.WatchOnly {
		e.warn("filter", "it only watches: nothing is dropped until \"enforce: true\" is in force").fix(e.portcullis("apply"))
	}
	for _, w := range e.Running.Warnings {
		e.warn("filter", "%s", w)
	}
	e.flows()
	for _, name := range slices.Concat(e.Interfaces, []string{e.Default}, e.Unfiltered) {
		if name != "" && !slices.Contains(filtered, name) {
			filtered = append(filtered, name)
			mend := []string{e.up(name)}
			if len(e.Named) > 0 && !slices.Contains(e.Named, name) {
				mend = append(mend, e.portcullis("save"))
			}
			e.warn("filter", "%s is not filtered: what comes in by it reaches every port", quote.Name(name)).fix(mend...)
		}
	}
}

// flows examines whether the flow table is large enough.
func (e *examination) flows() {
	f, refused := e.Running.Flows, e.Running.Refusals()
	anew := []string{e.portcullis("down"), e.upAgain()}
	switch {
	case refused.Packets > 0 && refused.Wanted > refused.Max:
		e.warn("flows", "%s", refused).fix(anew...)
	case refused.Packets > 0:
		e.warn("flows", "%s", refused)
	case refused.Wanted != refused.Max:
		e.note("flows", "%s", loader.KeepsSize(refused.Max, refused.Wanted)).
			fix(anew...)
	case f.Evicted > 0 && uint32(f.Answered+f.Pending) >= f.Max/10*9:
		e.note("flows", "the flow table is full (%d of %d) and has evicted %d flows; none of them was assured", f.Answered+f.Pending, f.Max, f.Evicted)
	case f.Evicted > 0:
		e.ok("flows", "%d of %d; the table has been full, and has evicted %d flows; none of them was assured",
			f.Answered+f.Pending, f.Max, f.Evicted)
	default:
		e.ok("flows", "%d of %d", f.Answered+f.Pending, f.Max)
	}
}
