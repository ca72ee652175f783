// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fetch"
	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// ListStatus is a list that is blocked.
type ListStatus struct {
	Name     string `json:"name"` // "block:" for what the policy file blocks by itself
	Networks int    `json:"networks"`
	Packets  uint64 `json:"packets"` // that were dropped by it
	Since    string `json:"since"`   // when these networks were first in force
	URL      string `json:"url,omitempty"`
	// Fetched is when the server of a list that is fetched last said that this is it.
	Fetched string `json:"fetched,omitempty"`
}

// FetchPlan returns a plan by which lists are fetched into where this firewall reads them.
func (fw *Firewall) FetchPlan() *fetch.Plan {
	return fetch.NewPlan(&fetch.Fetcher{Store: fw.listStore()})
}

// listStatus returns the lists in force, in the order of the policy.
func (fw *Firewall) listStatus(s *loader.Status) []ListStatus {
	urls := make(map[string]string)
	for _, l := range s.Policy.Lists {
		urls[l.Name] = l.URL
	}
	out := []ListStatus{}
	for _, l := range s.BlockLists {
		status := ListStatus{Name: l.Name, Networks: l.Networks4 + l.Networks6, Packets: l.Packets, Since: l.Since.Format(time.RFC3339), URL: urls[l.Name]}
		if l.Name == maps.OwnBlockList {
			status.URL = ""
		}
		if status.URL != "" {
			if at, ok := fw.listStore().Confirmed(status.URL); ok {
				status.Fetched = at.Format(time.RFC3339)
			}
		}
		out = append(out, status)
	}
	return out
}

// skippedLines returns the lines of list files that are no networks, and are left out of what is blocked and trusted.
func skippedLines(p *policy.Policy) []string {
	lines := []string{}
	for _, l := range p.Lists {
		for _, bad := range l.Skipped {
			if l.URL == "" {
				lines = append(lines, bad.Error())
			}
		}
	}
	return lines
}

// listWarnings returns what is to be said of lists that block or trust names and that come from a URL: who writes them is
// somebody else.
func listWarnings(p *policy.Policy) (out []string) {
	for _, l := range p.Named() {
		switch {
		case l.Missing != "":
			out = append(out, missingText(l))
		case l.URL != "" && len(l.Skipped) > 0:
			out = append(out, fmt.Sprintf("list %s from %s has lines that are no networks, and are left out, such as line %d: %s", l.Name, l.URL, l.Skipped[0].Line, l.Skipped[0].Msg))
		}
	}
	return out
}

func missingText(l policy.List) string {
	if l.Missing == fetch.ErrNoCopy.Error() {
		return fmt.Sprintf("list %s holds nothing: it has not been fetched from %s yet; \"portcullis run\", the service, fetches it", l.Name, l.URL)
	}
	return fmt.Sprintf("list %s from %s holds nothing: %s", l.Name, l.URL, l.Missing)
}

// overdue warns of lists that have not been fetched for much longer than they should be.
func (fw *Firewall) overdue(p *policy.Policy) (out []string) {
	for _, l := range p.Named() {
		if l.URL == "" || l.Missing != "" {
			continue
		}
		at, ok := fw.listStore().Confirmed(l.URL)
		if age := time.Since(at); ok && age > 3*l.Every+time.Hour {
			out = append(out, fmt.Sprintf("list %s is %s old, and to be fetched every %s: \"portcullis run\", the service, fetches it, and its log says what is wrong", l.Name, schedule.Span(age), schedule.Span(l.Every)))
		}
	}
	return out
}

// changedBlocking returns the files and URLs of lists of which a policy blocks or trusts another content than is in force,
// and the keys of these changes.
func changedBlocking(inForce, file *policy.Policy) (from []string, keys map[string]bool) {
	keys = make(map[string]bool)
	for _, c := range policy.Diff(inForce, file) {
		_, name, ok := strings.Cut(c.Key, " @")
		if !ok || c.Op != '~' {
			continue
		}
		for _, l := range file.Lists {
			if l.Name == name && (l.Path != "" || l.URL != "") {
				from = append(from, l.Path+l.URL)
				keys[c.Key] = true
			}
		}
	}
	return union(from), keys
}

// blocksAll reports whether a filter spares nothing of what a policy blocks.
func blocksAll(f Filter, p *policy.Policy) (bool, error) {
	lists, _, _ := maps.BlockListsOf(p)
	have, err := f.BlockLists()
	return slices.EqualFunc(have, lists, func(a maps.BlockListInForce, b maps.BlockList) bool {
		return a.Name == b.Name && a.Digest == b.Digest
	}), err
}
