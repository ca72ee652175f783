// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"fmt"
	"strconv"

	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Event is something that happens by itself, when its time has come.
type Event struct {
	Text   string
	Fields map[string]string // what a query of the journal may ask for
}

func (fw *Firewall) happens(text string, fields map[string]string) {
	if fw.options.Happens == nil {
		return
	}
	fields["PIN_PATH"] = fw.options.PinPath
	fw.options.Happens(Event{text, fields})
}

// rulesClosed tells of rules that were open for a time.
func (fw *Firewall) rulesClosed(rules []policy.Rule) {
	for _, r := range rules {
		fw.happens(fmt.Sprintf("closed %s: the time for which it was opened is up", r), map[string]string{
			"EVENT": "rule closed", "RULE": r.String(), "FORWARD": strconv.FormatBool(r.Forward)})
	}
}

// trialReverted tells of the end of a trial.
func (fw *Firewall) trialReverted(t *schedule.Trial) {
	fw.happens(fmt.Sprintf("reverted %s: nobody has confirmed it in time; what was in force before is in force again", t.File), map[string]string{
		"EVENT": "trial reverted", "FILE": t.File})
}
