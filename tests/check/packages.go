// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// maxFiles is how many Go files a package may have, without tests and what is generated, before somebody has to say why.
const maxFiles = 15

// large lists the packages that have more, and why they are one package all the same.
var large = map[string]string{
	"cmd/portcullis":       "a file for each command, and what they share",
	"cmd/portcullis/bench": "one program, that no other package uses: traffic, subjects, figures and the page share its types",
	"firewall":             "a file for each thing that one asks of a firewall; all are changes, or looks, at one state",
	"loader":               "a filter that runs and the way to it share its state",
	"maps":                 "a file for each map",
	"policy":               "rules, the file and what they come to are the methods of one type",
	"policy/shell":         "one shell, of which each file follows a part",
	"policy/iptables":      "one translation from text to policy, of which no step is of use alone",
}

// siblings names the exceptions to the rule that packages of one part of the tree do not import one another, but only
// what is above or below them. These are small packages that several need.
var siblings = map[string][]string{
	"cmd/portcullis":         {"cmd/fleetcommand"},
	"cmd/portcullisd":        {"cmd/fleetcommand"},
	"firewall/agent":         {"firewall/fetch", "firewall/firewalltest", "firewall/monitor", "firewall/savefile", "firewall/schedule"},
	"firewall/audit":         {"firewall/cmdline", "firewall/containers"},
	"firewall/crowdsec":      {"firewall/bans"},
	"firewall/doctor":        {"firewall/cmdline", "firewall/containers"},
	"firewall/explain":       {"firewall/schedule"},
	"firewall/fetch":         {"firewall/savefile"},
	"firewall/firewalltest":  {"firewall/containers", "firewall/schedule"},
	"firewall/fleet":         {"firewall/savefile"},
	"firewall/fleet/member":  {"firewall/bans", "firewall/firewalltest", "firewall/fleet/store", "firewall/savefile"},
	"firewall/fleet/publish": {"firewall/fleet/store"},
	"firewall/fleet/serve":   {"firewall/fleet/store", "firewall/fleet/store/storetest", "firewall/savefile"},
	"firewall/fleet/store":   {"firewall/savefile"},
	"firewall/importcheck":   {"firewall/nflog"},
	"firewall/metrics":       {"firewall/firewalltest"},
	"firewall/propose":       {"firewall/monitor"},
	"policy/firewalld":       {"policy/iptables", "policy/policytest"},
	"policy/iptables":        {"policy/policytest", "policy/quote", "policy/shell"},
	"policy/nft":             {"policy/addrset", "policy/iptables", "policy/policytest"},
	"policy/packets":         {"policy/addrset"},
	"policy/ufw":             {"policy/iptables", "policy/policytest"},
}

// PackageSize returns one complaint for each package that has more files than maxFiles and no reason, and for each
// reason that is not needed.
func PackageSize(files []string) []string {
	return packageSize(files, large)
}

func packageSize(files []string, reasons map[string]string) []string {
	count := map[string]int{}
	for _, name := range files {
		if path.Ext(name) == ".go" && !strings.HasSuffix(name, "_test.go") && !generated.MatchString(name) {
			count[path.Dir(name)]++
		}
	}
	var complaints []string
	for _, dir := range slices.Sorted(maps.Keys(count)) {
		if count[dir] > maxFiles && reasons[dir] == "" {
			complaints = append(complaints, fmt.Sprintf("%s: has %d Go files, more than %d: split it, or say in tests/check why not",
				dir, count[dir], maxFiles))
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(reasons)) {
		if count[dir] <= maxFiles {
			complaints = append(complaints, fmt.Sprintf("%s: has %d Go files, and needs no reason in tests/check", dir, count[dir]))
		}
	}
	return complaints
}

// importsSibling reports whether a package imports another of its part of the tree that is neither above nor below it,
// and that it is not known to need. Tests may import what they like.
func importsSibling(from, to string, exceptions map[string][]string) bool {
	related := from == to || strings.HasPrefix(from, to+"/") || strings.HasPrefix(to, from+"/")
	return !related && !strings.HasPrefix(from, "tests/") && !slices.Contains(exceptions[from], to)
}
