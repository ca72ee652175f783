// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/audit"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
)

func (a *app) auditCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "audit",
		Short: "Compare what listens with what is open",
		Long: `Compare the sockets that listen on this host, and the ports that it publishes for
containers, with the policy in force. If the filter is not up, every port is open, and audit
names those that the policy file would close or restrict.

  closed  something listens, and nobody can reach it: no rule lets anybody in
  open    something listens, and a rule or an unfiltered interface lets others in
  unused  a rule opens a port, and nothing listens

Each port comes with the command to run if it is not what you meant. Left out are sockets on
the loopback alone, and UDP sockets that seem only to wait for answers: those on the ports of
net.ipv4.ip_local_port_range. Changes nothing, and exits with 0 whatever it finds.`,
		Example: `  portcullis audit
  portcullis audit -o json | jq -r '.ports[] | select(.state == "unused") | .fix'`,
		GroupID:     "more",
		Annotations: needsRoot,
		Args:        noArguments,
		RunE:        func(cmd *cobra.Command, _ []string) error { return a.audit(cmd.Context()) },
	}
}

// auditView is what audit found, in JSON.
type auditView struct {
	Running bool          `json:"running"` // the policy is that in force
	Config  string        `json:"config"`
	BuiltIn bool          `json:"built_in"`
	Ports   []audit.Entry `json:"ports"`

	Unfiltered []string `json:"unfiltered"` // interfaces by which packets come in past the filter
}

func (a *app) audit(ctx context.Context) error {
	// Another user sees neither what is in force, nor processes, nor ports of containers.
	if err := a.privileged(); err != nil {
		return err
	}
	view := auditView{}
	in, err := audit.Gather(ctx)
	if in == nil {
		return err
	}
	if err != nil {
		a.warn(err.Error())
	}
	f, err := a.firewall.View(ctx)
	switch {
	case err == nil:
		in.Running = true
		in.Policy, err = f.Policy()
		if err == nil {
			in.Filtered, err = filteredNow(f)
		}
		view.Config = cmp.Or(f.Config(), a.config)
		f.Close()
	case isNotRunning(err):
		var wanted firewall.Wanted
		wanted, err = a.firewall.WantedByFile()
		in.Policy, view.BuiltIn, view.Config = wanted.Policy, wanted.BuiltIn, wanted.Config
	}
	if err != nil {
		return err
	}
	filtered := namesOfInterfaces(in.Filtered) // nothing, where nothing runs
	if in.Unfiltered, err = a.firewall.Unfiltered(filtered); err != nil {
		a.warn(err.Error())
	}
	in.Flags = a.firewall.Flags()
	view.Running, view.Unfiltered = in.Running, namesOfInterfaces(in.Unfiltered)
	if view.Running {
		a.warn(firewall.UnfilteredText(view.Unfiltered, in.Flags)...)
	}
	view.Ports = list(audit.Compare(*in))
	return a.print(view, func() { a.printAudit(&view) })
}

func (a *app) printAudit(v *auditView) {
	idle := "not in force: nothing is filtered, and anyone can reach what listens"
	if a.pinPath != loader.DefaultPinPath {
		idle = fmt.Sprintf("not in force: nothing is filtered by %s, and unless something else does, anyone can reach what listens", a.pinPath)
	}
	switch {
	case v.Running:
		a.printf("policy: in force\n\n")
	case v.BuiltIn:
		a.printf("policy: built in, as there is no %s; %s\n\n", v.Config, idle)
	default:
		a.printf("policy: %s; %s\n\n", v.Config, idle)
	}
	if len(v.Ports) == 0 {
		a.printf("nothing listens, and no port is open\n")
		return
	}
	rows := [][]string{{"STATE", "PORT", "ADDRESS", "PROCESS", "FROM", "TO CHANGE"}}
	counts := map[audit.State]int{}
	wider := 0 // open to more than the policy says
	for _, p := range v.Ports {
		rows = append(rows, []string{string(p.State), p.Port, strings.Join(p.Addresses, ","), strings.Join(p.Processes, ", "),
			fromText(p), p.Fix})
		counts[p.State]++
		if p.State == audit.Open && p.Fix != "" {
			wider++
		}
	}
	a.table(rows)
	unused := count(counts[audit.Unused], "unused rule", "unused rules")
	if v.Running {
		a.printf("\n%s, %s\n", count(counts[audit.Closed], "closed port with a listener", "closed ports with a listener"), unused)
	} else {
		a.printf("\n%s that the policy would close or restrict, %s\n", count(wider, "port", "ports"), unused)
	}
}

// fromText returns who may come to a port.
func fromText(p audit.Entry) string {
	from := p.From
	if len(p.Bypass) > 0 && !slices.Contains(from, "*") {
		from = append(slices.Clone(from), "anyone by "+strings.Join(p.Bypass, " and "))
	}
	texts := make([]string, len(from))
	for i, text := range from {
		texts[i] = text
		if where, ok := strings.CutPrefix(text, "*"); ok {
			texts[i] = "anyone" + where
		}
	}
	const most = 4
	if more := len(texts) - most; more > 1 {
		texts = append(texts[:most], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, ", ")
}

// filteredNow returns the interfaces that a filter is on.
func filteredNow(f firewall.Filter) (out []host.Interface, err error) {
	interfaces, err := f.Interfaces()
	for _, i := range interfaces {
		one := host.Interface{Name: i.Name}
		if here, err := net.InterfaceByName(i.Name); err == nil {
			one.Index = here.Index
		}
		out = append(out, one)
	}
	return out, err
}

func namesOfInterfaces(interfaces []host.Interface) []string {
	names := make([]string, len(interfaces))
	for i, one := range interfaces {
		names[i] = one.Name
	}
	return names
}
