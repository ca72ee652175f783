// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
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
	t.Run("package size", func(t *testing.T) { report(t)(PackageSize(files), nil) })
	t.Run("documents", func(t *testing.T) { report(t)(Documents(tree, files)) })
	t.Run("paths", func(t *testing.T) { report(t)(Paths(tree, files)) })
	t.Run("licences", func(t *testing.T) { report(t)(Licences(tree, files)) })
	t.Run("start", func(t *testing.T) { report(t)(Start(tree, files)) })
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
		"imports":   Imports,
		"documents": Documents,
		"licences":  Licences,
		"paths":     Paths,
		"start":     Start,
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

		{"imports", "loader/a.go", imports(Module + "/firewall"), "loader may import only host, maps, bpf, policy"},
		{"imports", "loader/hook/a.go", imports(Module + "/firewall/agent"), "loader may import only host, maps, bpf, policy"},
		{"imports", "firewall/agent/a.go", imports(Module+"/firewall", Module+"/loader/pin"), ""},
		{"imports", "firewall/a.go", imports(Module + "/firewall/agent"), ""},
		{"imports", "firewall/agent/a.go", imports(Module + "/firewall/doctor"), "side by side"},
		{"imports", "firewall/agent/a_test.go", imports(Module + "/firewall/doctor"), "side by side"},
		{"imports", "tests/host/a_test.go", imports(Module + "/tests/internal/lab"), ""},

		{"documents", "a.md", "`make build`, make love and\n\n    make quick\n", ""},
		{"documents", "a.md", "one\n`make bild`", `a.md:2: there is no target "bild"`},
		{"documents", "docs/a.md", "    GO=go make quik X=1", `docs/a.md:1: there is no target "quik"`},
		{"documents", "docs/a.md", "[a](#a-b), [a](../docs/a.md#a-b) and [a](https://example.com/)\n# A `B`", ""},
		{"documents", "a.md", "[report](../../security/advisories/new)", ""},
		{"documents", "docs/a.md", "\n[a](b.md)", "docs/a.md:2: the link to b.md: there is no such file"},
		{"documents", "docs/a.md", "[a](#b)\n# A", "the link to #b: there is no such heading"},

		{"top", "bpf/parse.h", "", ""},
		{"top", ".github/workflows/ci.yml", "", ""},
		{"top", "SECURITY.md", "", ""},
		{"top", ".ci/run", "", ""},
		{"top", ".clang-format", "", ""},
		{"top", ".secret/a", "", ".secret: has no place"},
		{"top", "internal/a.go", "", "internal: has no place"},
		{"top", "notes.md", "", "notes.md: has no place"},

		{"paths", "a.md", "one\nsee " + "/home" + "/someone/a.c", "a.md:2: "},
		{"paths", "a.sh", "cd '" + "/work" + "/tree'", "a.sh:1: "},
		{"paths", "a.o", "\x7fELF\x00" + "/root" + "/go/a.h\x00", "a.o:1: "},
		{"paths", "a.md", "/srv/a, tests/work/a, $HOME/root/b and ../home/c; /root, /home/", ""},

		{"start", "policy/a.go", "package p\n\nvar a = regexp.MustCompile(`a`)\n", "policy/a.go:3:9: regexp.MustCompile runs at every start"},
		{"start", "cmd/a.go", "package p\n\nvar (\n\ta = 1\n\tb = []any{template.Must(nil, nil)}\n)\n", "cmd/a.go:5:12: template.Must"},
		{"start", "policy/a.go", "package p\n\nvar a = func() any { return regexp.MustCompile(`a`) }()\n", "policy/a.go:3:29: "},
		{"start", "policy/a.go", "package p\n\nvar a = sync.OnceValue(func() any { return regexp.MustCompile(`a`) })\n", ""},
		{"start", "policy/a.go", "package p\n\nfunc a() any { return regexp.MustCompile(`a`) }\n", ""},
		{"start", "policy/a_test.go", "package p\n\nvar a = regexp.MustCompile(`a`)\n", ""},

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
		tree := fstest.MapFS{c.name: {Data: []byte(c.text)}, "Makefile": {Data: []byte("build: x\n\nquick: ## y\n")}}
		complaints, err := rules[c.rule](tree, []string{c.name})
		got := strings.Join(complaints, "\n")
		if err != nil || (c.complaint == "") != (got == "") || !strings.Contains(got, c.complaint) {
			t.Errorf("%s of %s, %q: got %q, %v; want %q", c.rule, c.name, c.text, got, err, c.complaint)
		}
	}
}

func TestPackageSize(t *testing.T) {
	tree := func(n int, more ...string) []string {
		files := slices.Clone(more)
		for i := range n {
			files = append(files, fmt.Sprintf("maps/%d.go", i))
		}
		return files
	}
	reason := map[string]string{"maps": "a file for each map"}
	for _, c := range []struct {
		files     []string
		reasons   map[string]string
		complaint string // a part of it; empty: none
	}{
		{tree(maxFiles), nil, ""},
		{tree(maxFiles + 1), nil, "maps: has 16 Go files, more than 15"},
		{tree(maxFiles+1, "maps/sub/a.go"), nil, "maps: has 16 Go files"},
		{tree(maxFiles, "maps/a_test.go", "maps/firewall_bpfel.go", "maps/reason_string.go", "maps/a.txt", "maps/sub/a.go"), nil, ""},
		{tree(maxFiles + 1), reason, ""},
		{tree(maxFiles), reason, "maps: has 15 Go files, and needs no reason"},
		{nil, reason, "maps: has 0 Go files, and needs no reason"},
	} {
		got := strings.Join(packageSize(c.files, c.reasons), "\n")
		if (c.complaint == "") != (got == "") || !strings.Contains(got, c.complaint) {
			t.Errorf("%d files with %q: got %q, want %q", len(c.files), c.reasons, got, c.complaint)
		}
	}
}

func TestSiblings(t *testing.T) {
	exceptions := map[string][]string{"firewall/doctor": {"firewall/cmdline"}}
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"firewall/doctor", "firewall/agent", true},
		{"firewall/doctor", "firewall/cmdline", false},
		{"firewall/audit", "firewall/cmdline", true},
		{"firewall/cmdline", "firewall/doctor", true},
		{"firewall/doctor", "firewall/doctor/deep", false},
		{"firewall/doctor/deep", "firewall/doctor", false},
		{"firewall/doctor2", "firewall/doctor", true},
		{"firewall/doctor", "firewall", false},
		{"tests/host", "tests/internal/lab", false},
	} {
		if got := importsSibling(c.from, c.to, exceptions); got != c.want {
			t.Errorf("%s imports %s: complains: %v, want %v", c.from, c.to, got, c.want)
		}
	}
}
