// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

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
		rows = append(rows, []string{name, strconv.Itoa(l.Networks), strconv.FormatUint(l.Packets, 10), l.Since, l.Fetched})
	}
	a.printf("\n")
	a.noted(rows)
}
