// SPDX-License-Identifier: Apache-2.0

package propose

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
)

// Proposal is what was seen, and what it would need.
type Proposal struct {
	Enforcing bool   `json:"enforcing"` // what was seen was dropped
	Needs     []Need `json:"needs"`
	Missed    uint64 `json:"missed"`    // packets that were not looked at, as there were too many
	Forgotten uint64 `json:"forgotten"` // packets to ports of which too few came to be remembered
	Noise     uint64 `json:"noise"`     // packets that begin nothing: replies, broadcasts, forged sources
}

// Proposal returns what has been seen so far.
func (c *Collector) Proposal(enforcing bool) (*Proposal, error) {
	needs, err := c.Needs()
	return &Proposal{Enforcing: enforcing, Needs: needs, Missed: c.missed, Forgotten: c.forgotten, Noise: c.noise}, err
}

// File returns a policy file that says what p does, enforces it, and has the rules besides that what was seen would need. What
// looks like a scan is in it as a comment.
func (r *Proposal) File(p *policy.Policy) []byte {
	var wanted []policy.Rule
	comments := make(map[string]string)
	var scans []string
	for i := range r.Needs {
		n := &r.Needs[i]
		if n.Scan {
			scans = append(scans, "#  - "+n.Rule+"  "+n.Comment())
			continue
		}
		wanted = append(wanted, n.rule)
		comments[n.Rule] = n.Comment()
	}
	with, _ := p.WithRules(wanted)
	with = with.Clone()
	with.WatchOnly = false
	lines := []string{"# Proposed from what was dropped, or would have been. Read each rule before you apply it: who sends packets",
		"# chooses what is written here."}
	for _, note := range r.Notes() {
		lines = append(lines, "# "+note)
	}
	written := strings.Split(strings.TrimSuffix(string(with.YAML()), "\n"), "\n")
	ofInput := false // and not of what is routed
	for i, line := range written {
		if line != "" && line[0] != ' ' {
			ofInput = line == "open:"
		}
		if !ofInput {
			continue
		}
		entry, isEntry := strings.CutPrefix(strings.TrimSpace(line), "- ")
		if comment, ok := comments[strings.Trim(entry, `"`)]; ok && isEntry {
			written[i] = line + "  " + comment
		}
	}
	lines = append(lines, written...)
	if scans != nil {
		lines = append(lines, fmt.Sprintf("# Not opened, as those who sent it ask for more than %d ports each:", scanPorts))
		lines = append(lines, scans...)
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}

// Notes returns what there is to know of the figures, a sentence each.
func (r *Proposal) Notes() (out []string) {
	if r.Enforcing {
		out = append(out, "The filter drops: of a connection only its first packets were seen.")
	}
	if r.Missed > 0 {
		out = append(out, fmt.Sprintf("%s more packets came too fast to be looked at.", thousands(r.Missed)))
	}
	if r.Forgotten > 0 {
		out = append(out, fmt.Sprintf("%s packets were to ports beyond the %d that are remembered, those of which fewest came.", thousands(r.Forgotten), mostPorts))
	}
	return out
}

// Comment returns what was seen as the comment on its rule.
func (n *Need) Comment() string {
	sources := strconv.Itoa(len(n.Sources)) + " sources"
	switch {
	case n.More:
		sources = "more than " + sources
	case len(n.Sources) == 1:
		sources = "1 source"
	}
	packets := thousands(n.Packets) + " packets"
	if n.Packets == 1 {
		packets = "1 packet"
	}
	return fmt.Sprintf("# %s from %s, last %s", packets, sources, n.Last.Local().Format("15:04:05"))
}

// thousands writes a number with commas: 1,204,331.
func thousands(n uint64) string {
	text := strconv.FormatUint(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
