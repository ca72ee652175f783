// SPDX-License-Identifier: Apache-2.0

package check

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const root = "../.."

func TestTree(t *testing.T) {
	tree := os.DirFS(root)
	files := treeFiles(t, tree)
	if !slices.Contains(files, "go.mod") || !slices.Contains(files, "tests/check/check.go") {
		t.Fatalf("this is not the list of the tree's files: %q", files)
	}

	t.Run("imports", func(t *testing.T) { report(t)(Imports(tree, files)) })
	t.Run("top level", func(t *testing.T) { report(t)(TopLevel(files), nil) })
	t.Run("paths", func(t *testing.T) { report(t)(Paths(tree, files)) })
	t.Run("licences", func(t *testing.T) { report(t)(Licences(tree, files)) })
}

func report(t *testing.T) func([]string, error) {
	return func(complaints []string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, complaint := range complaints {
			t.Error(complaint)
		}
	}
}

// treeFiles lists the files that are committed or could be: what git does not ignore, or, where there is no git or no
// repository, everything but bin/.
func treeFiles(t *testing.T, tree fs.FS) []string {
	t.Helper()
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	git := exec.Command("git", "-c", "safe.directory="+top, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	git.Dir = top
	if _, err := os.Stat(filepath.Join(top, ".git")); err == nil {
		if out, err := git.Output(); err == nil {
			files := strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
			return slices.DeleteFunc(files, func(name string) bool {
				info, err := fs.Stat(tree, name)
				return err != nil || !info.Mode().IsRegular() // removed, and not committed yet
			})
		}
	}

	var files []string
	err = fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".git" || name == "bin":
			return fs.SkipDir
		case entry.Type().IsRegular():
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Each case is a file that one rule must, or must not, complain about.
func TestRules(t *testing.T) {
	rules := map[string]func(fs.FS, []string) ([]string, error){
		"imports":  Imports,
		"licences": Licences,
		"paths":    Paths,
		"top": func(_ fs.FS, files []string) ([]string, error) {
			return TopLevel(files), nil
		},
	}
	imports := func(paths ...string) string {
		return "package p\n\nimport (\n\t\"" + strings.Join(paths, "\"\n\t\"") + "\"\n)\n"
	}
	constrained := "//go:build ignore && plan9\n\n"

	for _, c := range []struct {
		rule, name, text string
		complaint        string // a part of it; empty: none
	}{
		{"imports", "policy/a.go", imports("fmt", Module+"/policy/iptables"), ""},
		{"imports", "policy/a.go", imports(Module + "/maps"), "policy/a.go:4:2: package " + Module + "/policy imports " + Module + "/maps"},
		{"imports", "policy/deep/a.go", imports(Module + "/bpf"), "policy may import nothing of ours"},
		{"imports", "policy/a_test.go", imports(Module + "/loader"), Module + "/loader"},
		{"imports", "policy/a.go", constrained + imports(Module+"/maps"), Module + "/maps"},
		{"imports", "policy/a.go", imports("github.com/cilium/ebpf/link"), "knows no kernel"},
		{"imports", "policy/a.go", imports("golang.org/x/sys/unix"), "knows no kernel"},
		{"imports", "bpf/a.go", imports("github.com/cilium/ebpf"), ""},
		{"imports", "bpf/a.go", imports(Module + "/policy"), "bpf may import nothing of ours"},
		{"imports", "maps/a.go", imports(Module+"/bpf", Module+"/policy"), ""},
		{"imports", "maps/a.go", imports(Module + "/loader"), "maps may import only bpf, policy"},
		{"imports", "loader/a.go", imports(Module+"/maps", Module+"/policy"), ""},
		{"imports", "loader/a.go", imports(Module + "/cmd/portcullis"), Module + "/cmd/portcullis"},
		{"imports", "loader/a_test.go", imports(Module + "/tests/netns"), Module + "/tests/netns"},
		{"imports", "loader/a.go", imports(Module+"/loader/hook", Module+"/loader/pin"), ""},
		{"imports", "loader/pin/a.go", imports(Module+"/loader/hook", Module+"/host"), ""},
		{"imports", "loader/pin/a.go", imports(Module + "/loader"), "of loader, loader/pin may import only loader/hook, loader/lock"},
		{"imports", "loader/hook/a.go", imports(Module + "/loader/pin"), "of loader, loader/hook may import nothing"},
		{"imports", "cmd/portcullis/a.go", imports(Module + "/loader"), ""},
		{"imports", "cmd/portcullis/a.go", imports(Module + "/tests/netns"), Module + "/tests/netns"},
		{"imports", "tests/a_test.go", imports(Module+"/loader", Module+"/bpf", Module+"/tests/netns"), ""},
		{"imports", "elsewhere/a.go", imports(Module + "/policy"), "elsewhere may import nothing of ours"},
		{"imports", "policy/a.go", imports(Module + "-else/maps"), ""},

		{"top", "bpf/parse.h", "", ""},
		{"top", ".ci/run", "", ""},
		{"top", ".clang-format", "", ""},
		{"top", ".secret/a", "", ".secret: has no place"},
		{"top", "internal/a.go", "", "internal: has no place"},
		{"top", "notes.md", "", "notes.md: has no place"},

		{"paths", "a.md", "one\nsee " + "/home" + "/someone/a.c", "a.md:2: "},
		{"paths", "a.sh", "cd '" + "/work" + "/tree'", "a.sh:1: "},
		{"paths", "a.o", "\x7fELF\x00" + "/root" + "/go/a.h\x00", "a.o:1: "},
		{"paths", "a.md", "/srv/a, tests/work/a, $HOME/root/b and ../home/c; /root, /home/", ""},

		{"licences", "policy/a.go", "// SPDX-License-Identifier: Apache-2.0\n\npackage p\n", ""},
		{"licences", "policy/a.go", "package p\n", "policy/a.go: does not say"},
		{"licences", "policy/a.go", "// SPDX-License-Identifier: GPL-2.0-only\n", "Apache-2.0"},
		{"licences", "bpf/a.bpf.c", "// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause\n", ""},
		{"licences", "bpf/a.bpf.c", "//go:build ignore\n\n// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause\n", ""},
		{"licences", "bpf/a.h", "\n\n\n\n\n// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause\n", "bpf/a.h: does not say"},
		{"licences", "bpf/a.h", "/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */\n", ""},
		{"licences", "bpf/a.h", "/* SPDX-License-Identifier: GPL-2.0-only */\n", "GPL-2.0-only OR BSD-2-Clause"},
		{"licences", "bpf/firewall_bpfel.go", "// Code generated by bpf2go; DO NOT EDIT.\n", ""},
	} {
		tree := fstest.MapFS{c.name: {Data: []byte(c.text)}}
		complaints, err := rules[c.rule](tree, []string{c.name})
		got := strings.Join(complaints, "\n")
		if err != nil || (c.complaint == "") != (got == "") || !strings.Contains(got, c.complaint) {
			t.Errorf("%s of %s, %q: got %q, %v; want %q", c.rule, c.name, c.text, got, err, c.complaint)
		}
	}
}
