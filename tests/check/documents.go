// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

var (
	makeTarget = regexp.MustCompile(`(?m)^([a-z][a-z-]*):`)
	// makeCommand matches a command between backticks, and one that stands on a line of its own.
	makeCommand = regexp.MustCompile("(?:`|^ {4,}(?:[A-Z_]+=\\S+ )*)make ([a-z][a-z-]*)")
	link        = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading     = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	notInAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// Documents returns one complaint for each make target that a document names and the Makefile does not have, and for
// each link within the tree that leads nowhere.
func Documents(tree fs.FS, files []string) ([]string, error) {
	makefile, err := fs.ReadFile(tree, "Makefile")
	if err != nil {
		return nil, err
	}
	var targets []string
	for _, found := range makeTarget.FindAllSubmatch(makefile, -1) {
		targets = append(targets, string(found[1]))
	}

	var complaints []string
	for _, name := range files {
		if path.Ext(name) != ".md" {
			continue
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return nil, err
		}
		for i, line := range strings.Split(string(text), "\n") {
			for _, found := range makeCommand.FindAllStringSubmatch(line, -1) {
				if !slices.Contains(targets, found[1]) {
					complaints = append(complaints, fmt.Sprintf("%s:%d: there is no target %q in the Makefile", name, i+1, found[1]))
				}
			}
			for _, found := range link.FindAllStringSubmatch(line, -1) {
				if why := followLink(tree, files, name, found[1]); why != "" {
					complaints = append(complaints, fmt.Sprintf("%s:%d: the link to %s: %s", name, i+1, found[1], why))
				}
			}
		}
	}
	return complaints, nil
}

// followLink returns why a link from a document leads nowhere. One that leaves the tree is not followed: "../../" at its
// top is how GitHub's pages about the repository are reached.
func followLink(tree fs.FS, files []string, from, to string) (why string) {
	if strings.Contains(to, ":") || strings.HasPrefix(to, "../../") && !strings.Contains(from, "/") {
		return ""
	}
	file, anchor, _ := strings.Cut(to, "#")
	target := from
	if file != "" {
		target = path.Join(path.Dir(from), file)
	}
	inDirectory := func(name string) bool { return strings.HasPrefix(name, target+"/") }
	if !slices.Contains(files, target) && !slices.ContainsFunc(files, inDirectory) {
		return "there is no such file"
	}
	if anchor == "" {
		return ""
	}
	text, err := fs.ReadFile(tree, target)
	if err != nil {
		return err.Error()
	}
	for _, found := range heading.FindAllSubmatch(text, -1) {
		title := notInAnchor.ReplaceAllString(strings.ToLower(string(found[1])), "")
		if strings.ReplaceAll(title, " ", "-") == anchor {
			return ""
		}
	}
	return "there is no such heading"
}
