// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/maps"
)

// skippedError is returned where all was done but for lines of list files that are no networks.
func skippedError(lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	return fmt.Errorf("%s\nwhat else these lists hold counts: mend the lines above, or take them out", strings.Join(lines, "\n"))
}

// printed returns the error of a command that has printed its report, and left lines of lists out.
func printed(err error, skipped []string) error { return errors.Join(err, skippedError(skipped)) }

// printLists prints the lists that are blocked.
func (a *app) printLists(lists []firewall.ListStatus) {
	if len(lists) == 0 {
		return
	}
	rows := [][]string{{"BLOCKED", "NETWORKS", "PACKETS", "SINCE", "FETCHED"}}
	for _, l := range lists {
		name := "@" + l.Name
		if l.Name == maps.OwnBlockList {
			name = "in the file"
		}
		rows = append(rows, []string{name, strconv.Itoa(l.Networks), strconv.FormatUint(l.Packets, 10), localTime(l.Since), localTime(l.Fetched)})
	}
	a.printf("\n")
	a.noted(rows)
}

// localTime returns a time of JSON as all others are printed.
func localTime(text string) string {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at.Local().Format(time.DateTime)
	}
	return text
}

// reasonsShown is how many reasons of bans status prints.
const reasonsShown = 5

// printBanned prints how many bans are in force, and the reasons of the last ones.
func (a *app) printBanned(b firewall.BansStatus) {
	if b.Count == 0 && b.Packets == 0 {
		return
	}
	rows := [][]string{{"BANNED FOR", "BANS", "PACKETS", "LAST"}}
	for _, r := range b.Reasons[:min(len(b.Reasons), reasonsShown)] {
		reason, last := r.Reason, ""
		if reason == "" {
			reason = "no reason"
		}
		if r.Last != nil {
			last = r.Last.Local().Format(time.DateTime)
		}
		rows = append(rows, []string{reason, strconv.Itoa(r.Count), strconv.FormatUint(r.Packets, 10), last})
	}
	a.printf("\n")
	if len(rows) > 1 {
		a.noted(rows)
	}
	if more := b.More + max(len(b.Reasons)-reasonsShown, 0); more > 0 {
		a.printf("and %s: \"portcullis bans\" lists who is banned\n", count(more, "more reason", "more reasons"))
	}
	about := ""
	if !b.Exact {
		about = "about "
	}
	a.printf("bans: %s%s in force, %d packets dropped\n", about, count(b.Count, "address or network", "addresses and networks"), b.Packets)
}
