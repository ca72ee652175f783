// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/firewalld"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
	"github.com/portcullis-firewall/portcullis/policy/nft"
	"github.com/portcullis-firewall/portcullis/policy/ufw"
)

// ruleSource is a firewall whose rules can be imported.
type ruleSource struct {
	name string
	// is reports whether a file holds rules of that firewall.
	is   func(file iptables.File) bool
	read func(files []iptables.File, o iptables.Options) (*iptables.Result, error)
}

// ruleSources are the firewalls, with iptables as the last, which says what is wrong with any other file.
var ruleSources = []ruleSource{
	{"nft", func(f iptables.File) bool { return nft.Detect(f.Data) }, readNFT},
	{"firewalld", func(f iptables.File) bool { return firewalld.Detect(f.Data) }, firewalld.Import},
	{"ufw", ufw.Detect, readUFW},
	{"iptables", func(iptables.File) bool { return true }, iptables.ImportWith},
}

// fromHelp lists what --from takes.
const fromHelp = "nft, firewalld, ufw or iptables"

// sourceOf returns the source of files: the one that is named, or else that of which all of them are.
func sourceOf(files []iptables.File, from string) (ruleSource, error) {
	if from == "script" { // as it is called elsewhere
		from = "iptables"
	}
	var found *ruleSource
	for i := range ruleSources {
		if s := &ruleSources[i]; s.name == from {
			return *s, nil
		}
	}
	if from != "" {
		return ruleSource{}, usagef("--from %s: there is no such source: write %s", from, fromHelp)
	}
	if len(files) == 0 { // in force
		return ruleSources[len(ruleSources)-1], nil
	}
	for _, f := range files {
		i := slices.IndexFunc(ruleSources, func(s ruleSource) bool { return s.is(f) })
		if found != nil && found != &ruleSources[i] {
			return ruleSource{}, fmt.Errorf("%s is for %s, and %s for %s: translate the files of each firewall for itself, or say with --from what all of them are for",
				files[0].Name, found.name, f.Name, ruleSources[i].name)
		}
		found = &ruleSources[i]
	}
	return *found, nil
}

// readUFW reads the files of ufw. Without any but those of users, what ufw has by default is taken.
func readUFW(files []iptables.File, o iptables.Options) (*iptables.Result, error) {
	onlyUsers := !slices.ContainsFunc(files, func(f iptables.File) bool { return !strings.HasPrefix(filepath.Base(f.Name), "user") })
	if onlyUsers {
		return iptables.ImportWith(files, o)
	}
	return ufw.Import(files, o)
}

func readNFT(files []iptables.File, o iptables.Options) (*iptables.Result, error) {
	return nft.Import(files, o, includeOf)
}

// nftIncludes is where nft looks for what a file includes.
const nftIncludes = "/etc"

// includeOf reads the files that an "include" of nft names.
func includeOf(path string) ([]iptables.File, error) {
	if !filepath.IsAbs(path) && !strings.HasPrefix(path, "./") && !strings.HasPrefix(path, "../") {
		path = filepath.Join(nftIncludes, path)
	}
	paths := []string{path}
	if strings.ContainsAny(path, "*?[") {
		var err error
		if paths, err = filepath.Glob(path); err != nil {
			return nil, err
		}
	}
	var files []iptables.File
	for _, p := range paths {
		f, err := readRuleFile(p)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// readRuleFile reads a file with rules.
func readRuleFile(path string) (iptables.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return iptables.File{}, err
	}
	defer f.Close()
	return readRuleText(path, f)
}

func readRuleText(name string, in io.Reader) (iptables.File, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxImport+1))
	if err == nil && len(data) > maxImport {
		err = errors.New("larger than 16 MiB, so these are not the rules of a firewall")
	}
	if err != nil {
		return iptables.File{}, fmt.Errorf("%s: %w", name, err)
	}
	return iptables.File{Name: name, Data: data}, nil
}

// rulePaths returns the files that a path stands for: itself, or those of a firewall's directory, such as /etc/firewalld
// with what is below /usr/lib/firewalld, /etc/ufw with /etc/default/ufw, or one with files of nft.
func rulePaths(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}, nil // opening it says what is wrong
	}
	glob := func(patterns ...string) (found []string) {
		for _, p := range patterns {
			some, _ := filepath.Glob(p)
			found = append(found, some...)
		}
		return found
	}
	in := func(dir string, names ...string) (patterns []string) {
		for _, n := range names {
			patterns = append(patterns, filepath.Join(escapeGlob(dir), n))
		}
		return patterns
	}
	zones := []string{"zones/*.xml", "policies/*.xml", "ipsets/*.xml", "services/*.xml"}
	switch {
	case len(glob(in(path, "zones", "firewalld.conf")...)) > 0:
		// Later files count.
		return glob(append(in(filepath.Join(path, "../../usr/lib/firewalld"), zones...), in(path, append(zones, "direct.xml", "firewalld.conf")...)...)...), nil
	case len(glob(in(path, "user.rules", "user6.rules")...)) > 0:
		return glob(append(in(path, "before.rules", "after.rules", "user.rules", "before6.rules", "after6.rules", "user6.rules", "ufw.conf"),
			in(filepath.Join(path, "../default"), "ufw")...)...), nil
	}
	if files := glob(in(path, "*.nft")...); len(files) > 0 {
		return files, nil
	}
	return nil, fmt.Errorf("%s is a directory, and none of firewalld, ufw or nft: name the files with rules", path)
}

// escapeGlob is a path in which nothing is a pattern.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}
