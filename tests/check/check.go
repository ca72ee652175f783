// SPDX-License-Identifier: Apache-2.0

// Package check holds the rules of the source tree that no compiler enforces: which package may import which and how
// large it may be, what may lie at the top level, which licence a file states, what runs at every start, that documents
// name what exists, and that no file names a path of the machine it was written on. Each rule reads a file system, so that
// its test can show it a tree that breaks it.
package check

import (
	"bytes"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Module is the import path of the tree's root.
const Module = "github.com/portcullis-firewall/portcullis"

// layers says which parts of the tree each part may import beside itself:
// cmd -> firewall -> loader -> {host, maps} -> {bpf, policy}.
// Only tests may import anything, and nobody outside tests and cmd imports those.
var layers = map[string][]string{
	"bpf":      {},
	"policy":   {},
	"maps":     {"bpf", "policy"},
	"host":     {"policy"},
	"loader":   {"host", "maps", "bpf", "policy"},
	"firewall": {"loader", "host", "maps", "policy"},
	"cmd":      {"firewall", "loader", "host", "maps", "bpf", "policy"},
	"tests":    {"cmd", "firewall", "loader", "host", "maps", "bpf", "policy"},
}

// within says which parts of their own tree those parts may import that lie below another: loader -> {pin -> {hook, lock}, seed}.
var within = map[string][]string{
	"loader/hook": {},
	"loader/lock": {},
	"loader/seed": {},
	"loader/pin":  {"loader/hook", "loader/lock"},
}

// kernel lists the modules that the policy, which knows no kernel, must do without.
var kernel = []string{"github.com/cilium/ebpf", "github.com/vishvananda", "golang.org/x/sys"}

// topLevel lists what may lie at the top of the tree, beside files whose name starts with a dot.
var topLevel = []string{
	".ci", ".github", "bpf", "cmd", "docs", "firewall", "host", "loader", "maps", "packaging", "policy", "tests",
	"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md", "go.mod", "go.sum",
}

// workplace matches an absolute path into somebody's home or workspace. It is written so as not to match itself.
var workplace = regexp.MustCompile(`(^|[^A-Za-z0-9_.~})*/-])/(work|root|home)/[A-Za-z0-9_.+-]+`)

// generated matches the files that bpf2go writes.
var generated = regexp.MustCompile(`_(bpfe[lb]\.(go|o)|string\.go)$`)

// headerLines is how far into a file its SPDX header may stand.
const headerLines = 5

// Imports returns one complaint for each import that points the wrong way. It reads the import clauses themselves, so
// that no build constraint hides one.
func Imports(tree fs.FS, files []string) ([]string, error) {
	var complaints []string
	for _, name := range files {
		if path.Ext(name) != ".go" {
			continue
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return nil, err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, text, parser.ImportsOnly)
		if err != nil {
			return nil, err
		}

		from, _, _ := strings.Cut(name, "/")
		allowed, known := layers[from]
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return nil, err
			}
			complain := func(why string) {
				complaints = append(complaints, fmt.Sprintf("%s: package %s imports %s: %s",
					set.Position(spec.Pos()), path.Join(Module, path.Dir(name)), imported, why))
			}

			if inside, ours := cutModule(imported); ours {
				to, _, _ := strings.Cut(inside, "/")
				if !known || to != from && !slices.Contains(allowed, to) {
					complain(fmt.Sprintf("%s may import %s", from, listOr(allowed, "nothing of ours")))
				}
				below, isBelow := within[path.Dir(name)]
				if isBelow && to == from && !slices.Contains(below, inside) {
					complain(fmt.Sprintf("of %s, %s may import %s", from, path.Dir(name), listOr(below, "nothing")))
				}
				if !isBelow && to == from && importsSibling(path.Dir(name), inside, siblings) {
					complain("they stand side by side: move what both need below them, or name the exception in tests/check")
				}
			} else if from == "policy" && slices.ContainsFunc(kernel, func(prefix string) bool {
				return imported == prefix || strings.HasPrefix(imported, prefix+"/")
			}) {
				complain("the policy knows no kernel")
			}
		}
	}
	return complaints, nil
}

// cutModule returns the part of an import path below the module's root, and whether the module is ours.
func cutModule(imported string) (within string, ours bool) {
	if imported == Module {
		return "", true
	}
	return strings.CutPrefix(imported, Module+"/")
}

func listOr(names []string, none string) string {
	if len(names) == 0 {
		return none
	}
	return "only " + strings.Join(names, ", ")
}

// TopLevel returns one complaint for each entry at the top of the tree that has no place there.
func TopLevel(files []string) []string {
	var complaints []string
	var seen []string
	for _, name := range files {
		entry, _, isDirectory := strings.Cut(name, "/")
		if slices.Contains(seen, entry) {
			continue
		}
		seen = append(seen, entry)
		if slices.Contains(topLevel, entry) || strings.HasPrefix(entry, ".") && !isDirectory {
			continue
		}
		complaints = append(complaints, entry+": has no place at the top level, which holds only "+
			strings.Join(topLevel, ", ")+" and files whose name starts with a dot")
	}
	return complaints
}

// Paths returns one complaint for each line, or compiled object, that names a path of a workplace.
func Paths(tree fs.FS, files []string) ([]string, error) {
	var complaints []string
	for _, name := range files {
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return nil, err
		}
		for number, line := range bytes.Split(text, []byte("\n")) {
			if found := workplace.Find(line); found != nil {
				complaints = append(complaints, fmt.Sprintf("%s:%d: names a path of the machine it was written on: %q",
					name, number+1, found))
			}
		}
	}
	return complaints, nil
}

// Licences returns one complaint for each source file that does not start with the SPDX header of its kind.
func Licences(tree fs.FS, files []string) ([]string, error) {
	var complaints []string
	for _, name := range files {
		var licence string
		switch {
		case generated.MatchString(name):
			continue
		case path.Ext(name) == ".go":
			licence = "Apache-2.0"
		case strings.HasPrefix(name, "bpf/") && (path.Ext(name) == ".c" || path.Ext(name) == ".h"):
			licence = "GPL-2.0-only OR BSD-2-Clause"
		default:
			continue
		}

		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return nil, err
		}
		// A build constraint may stand before it.
		lines := strings.SplitN(string(text), "\n", headerLines+1)
		lines = lines[:min(len(lines), headerLines)]
		if !slices.ContainsFunc(lines, func(line string) bool {
			line = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), "*/"))
			return line == "// SPDX-License-Identifier: "+licence || line == "/* SPDX-License-Identifier: "+licence
		}) {
			complaints = append(complaints, fmt.Sprintf("%s: does not say SPDX-License-Identifier: %s in its first %d lines",
				name, licence, headerLines))
		}
	}
	return complaints, nil
}
