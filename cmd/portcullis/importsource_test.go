// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

const nftRules = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority 0; policy drop;\n\t\tct state established,related accept\n\t\ttcp dport 22 accept\n\t}\n}\n"

// What a file is for is told by its text, and not by its name.
func TestSourceOf(t *testing.T) {
	for _, c := range []struct{ name, text, from, want, err string }{
		{"rules.v4", nftRules, "", "nft", ""},
		{"a", "#!/usr/sbin/nft -f\nflush ruleset\nadd table ip a\n", "", "nft", ""},
		{"a", ` {"nftables": []}`, "", "nft", ""},
		{"fw.sh", "#!/bin/sh\niptables -A INPUT -j DROP\nnft -f - <<E\ntable inet filter {\n}\nE\n", "", "iptables", ""},
		{"a", "*filter\n:INPUT DROP [0:0]\nCOMMIT\n", "", "iptables", ""},
		{"public", "<?xml version=\"1.0\"?>\n<!-- mine -->\n<zone>\n</zone>\n", "", "firewalld", ""},
		{"conf", "# firewalld\nDefaultZone=home\n", "", "firewalld", ""},
		{"before.rules", "*filter\n:ufw-before-input - [0:0]\nCOMMIT\n", "", "ufw", ""},
		{"dump", "*filter\n:INPUT DROP [0:0]\n:ufw-before-input - [0:0]\nCOMMIT\n", "", "iptables", ""},
		{"default/ufw", "IPV6=yes\nDEFAULT_INPUT_POLICY=\"DROP\"\n", "", "ufw", ""},
		{"a", nftRules, "iptables", "iptables", ""},
		{"a", nftRules, "script", "iptables", ""},
		{"a", nftRules, "pf", "", "--from pf: there is no such source: write nft, firewalld, ufw or iptables"},
	} {
		s, err := sourceOf([]iptables.File{{Name: c.name, Data: []byte(c.text)}}, c.from)
		if s.name != c.want || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%q from %q is for %q, %v", c.text, c.from, s.name, err)
		}
	}
}

// A directory stands for the files of its firewall, and those of different firewalls are not mixed.
func TestImportFromDirectories(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("etc/firewalld/firewalld.conf", "DefaultZone=mine\n")
	write("etc/firewalld/zones/mine.xml", "<zone>\n<service name=\"ssh\"/>\n<service name=\"odd\"/>\n</zone>\n")
	write("usr/lib/firewalld/services/odd.xml", "<service><port port=\"4711\" protocol=\"udp\"/></service>\n")
	write("etc/ufw/user.rules", "*filter\n:ufw-user-input - [0:0]\n-A ufw-user-input -p tcp --dport 80 -j ACCEPT\nCOMMIT\n")
	write("etc/ufw/before.rules", "*filter\n:ufw-before-input - [0:0]\n-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n")
	write("etc/default/ufw", "IPV6=no\nDEFAULT_INPUT_POLICY=\"DROP\"\n")
	write("etc/nftables.d/a.nft", nftRules)
	write("etc/nftables.d/b.nft", "add rule inet filter input udp dport 53 accept\n")
	write("etc/main.conf", "include \""+root+"/etc/nftables.d/*.nft\"\n"+"add rule inet filter input tcp dport 443 accept\ntable inet filter { }\n")
	write("etc/empty/a.txt", "")
	for _, c := range []struct {
		paths string
		code  int
		want  string // in what is printed
	}{
		{"etc/firewalld", 0, "open:\n  - 22/tcp\n  - 4711/udp\n"},
		{"etc/ufw", 1, "open:\n  - 80/tcp from 0.0.0.0/0\n"}, // which also says that answers by IPv6 come in
		{"etc/nftables.d", 0, "open:\n  - 22/tcp\n  - 53/udp\n"},
		{"etc/main.conf", 0, "open:\n  - 22/tcp\n  - 53/udp\n  - 443/tcp\n"},
		{"etc/empty", 1, "etc/empty is a directory, and none of firewalld, ufw or nft: name the files with rules"},
		{"etc/ufw etc/nftables.d", 1, "translate the files of each firewall for itself"},
		{"etc/none", 1, "no such file or directory"},
	} {
		e := newHost(t).env()
		var out strings.Builder
		e.stdout, e.stderr = &out, &out
		args := []string{"import"}
		for _, p := range strings.Fields(c.paths) {
			args = append(args, filepath.Join(root, p))
		}
		if code := run(e, args); code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: exits with %d and prints\n%s\nwant %d, %s", c.paths, code, &out, c.code, c.want)
		}
	}
}
