// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"strings"
)

// format is what a text is.
type format int

const (
	shellScript format = iota // commands of a shell
	save                      // what iptables-save prints
	listing                   // what iptables -S prints
	ipsets                    // what ipset save prints
)

var (
	tableLine = pattern(`(?m)^\s*\*(filter|nat|mangle|raw|security)\s*$`)
	hereDoc   = pattern(`(?m)^[^#\n]*tables-restore\b.*<<`)
	ufwRules  = pattern(`(?m)^:ufw6?-user-input\s`)
	setLine   = pattern(`^create \S+ (hash|bitmap|list):`)
)

// formatOf tells what a text is by what stands in it.
func formatOf(text string) format {
	first, _, _ := strings.Cut(text, "\n")
	_, restored := interpreter(first)
	switch {
	case tableLine().MatchString(text) && (restored || !strings.HasPrefix(text, "#!") && !hereDoc().MatchString(text)):
		return save
	case strings.HasPrefix(text, "#!") && !restored:
		return shellScript
	}
	lines, listed, sets := 0, 0, 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		lines++
		switch {
		case len(line) > 3 && strings.Contains("-P -N -A -I ", line[:3]):
			listed++
		case setLine().MatchString(line) || strings.HasPrefix(line, "add "):
			sets++
		}
	}
	switch {
	case lines == 0:
	case listed == lines:
		return listing
	case sets == lines:
		return ipsets
	}
	return shellScript
}

// IsSets reports whether a text is what "ipset save" prints.
func IsSets(data []byte) bool { return formatOf(plainText(data)) == ipsets }

// IsRules reports whether a text is rules of iptables as iptables-save or "iptables -S" print them.
func IsRules(data []byte) bool {
	f := formatOf(plainText(data))
	return f == save || f == listing
}

// plainText is a text in UTF-8 with lines that end as on Unix.
func plainText(data []byte) string {
	text := strings.TrimPrefix(strings.ToValidUTF8(string(data), "\ufffd"), "\ufeff")
	return strings.ReplaceAll(text, "\r\n", "\n")
}
