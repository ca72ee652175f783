// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// otherWords lists, by command, what ufw, firewalld, systemctl and the like call it. A word whose meaning is not quite
// the command's has a sentence in notQuite.
var otherWords = map[string][]string{
	"up":      {"enable", "start", "restart", "on", "load", "restore"},
	"down":    {"disable", "stop", "off", "unload"},
	"run":     {"daemon", "agent"},
	"status":  {"list", "show", "rules", "ls", "info", "stats", "counters"},
	"open":    {"allow", "permit", "accept", "add", "insert", "append"},
	"close":   {"deny", "block", "ban", "delete", "del", "remove", "rm", "drop", "reject"},
	"apply":   {"reload", "refresh", "replace"},
	"check":   {"validate", "verify", "lint"},
	"diff":    {"compare"},
	"save":    {"store", "persist"},
	"try":     {"test", "trial"},
	"confirm": {"commit"},
	"revert":  {"rollback", "undo", "cancel"},
	"flows":   {"connections", "conntrack", "states", "flush"},
	"log":     {"logs", "monitor", "tail", "follow"},
	"import":  {"convert", "translate", "migrate"},
	"doctor":  {"diagnose"},
	"audit":   {"ports", "listeners"},
	"bench":   {"benchmark"},
}

const noBlockList = "there is no block list; what no rule opens is closed, and \"portcullis close RULE\" takes a rule back"

var notQuite = map[string]string{
	"ban":   noBlockList,
	"block": noBlockList,
	"flush": "\"portcullis flows flush\" deletes all flows; \"portcullis close RULE\" takes a rule back",
}

// hint returns what to do about a command that does not exist.
func hint(parent *cobra.Command, word string) string {
	word = strings.ToLower(word)
	if text, ok := notQuite[word]; ok {
		return text
	}
	for command, words := range otherWords {
		if slices.Contains(words, word) {
			return fmt.Sprintf("did you mean %s?", command)
		}
	}
	parent.SuggestionsMinimumDistance = min(max(len(word)-1, 1), 2)
	if alike := parent.SuggestionsFor(word); len(alike) > 0 {
		return fmt.Sprintf("did you mean %s?", or(alike))
	}
	return fmt.Sprintf("see %q", parent.CommandPath()+" --help")
}
