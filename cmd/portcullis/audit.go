// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/audit"
	"github.com/portcullis-firewall/portcullis/host"
)

func (a *app) auditCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "audit",
		Short: "Compare what listens with what is open",
		Long: `Compare the sockets that listen on this host, and the ports that it publishes for
containers, with the policy in force, or with the file if the filter is not up.

  closed  something listens, and no rule lets anybody in
  open    something listens, and a rule or an unfiltered interface lets others in
  unused  a rule opens a port, and nothing listens

Each port comes with the command to run if it is not what you meant. Left out are sockets on
the loopback alone, and UDP sockets that seem only to wait for answers: those on the ports of
net.ipv4.ip_local_port_range. Changes nothing, and exits with 0 whatever it finds.`,
		Example: `  portcullis audit
  portcullis audit -o json | jq -r '.ports[] | select(.state == "unused") | .fix'`,
		GroupID: "more",
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.audit(cmd.Context()) },
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
	view := auditView{}
	in, err := audit.Gather(ctx)
	if in == nil {
		return err
	}
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		a.warn(err.Error())
	}
	if a.privileged() != nil {
		a.warn("without root the file is compared, not what is in force; processes and ports of containers are not seen")
	} else if f, err := a.firewall.View(ctx); err == nil {
		view.Running = true
		in.Policy, err = f.Policy()
		view.Config = cmp.Or(f.Config(), a.config)
		f.Close()
		if err != nil {
			return err
		}
	} else if !isNotRunning(err) {
		return err
	}
	if !view.Running {
		wanted, err := a.firewall.WantedByFile()
		if err != nil {
			return err
		}
		in.Policy, view.BuiltIn, view.Config = wanted.Policy, wanted.BuiltIn, wanted.Config
	}
	filtered, err := a.firewall.Interfaces(nil, in.Policy.Interfaces, nil)
	if err != nil {
		a.warn(err.Error())
	} else if in.Unfiltered, err = a.firewall.Unfiltered(filtered); err != nil {
		a.warn(err.Error())
	}
	in.Flags = a.firewall.Flags()
	view.Unfiltered = namesOfInterfaces(in.Unfiltered)
	if view.Running {
		a.warn(firewall.UnfilteredText(view.Unfiltered, in.Flags)...)
	}
	view.Ports = list(audit.Compare(*in))
	return a.print(view, func() { a.printAudit(&view) })
}

func (a *app) printAudit(v *auditView) {
	switch {
	case v.Running:
		a.printf("policy: in force\n\n")
	case v.BuiltIn:
		a.printf("policy: built in, as there is no %s; not in force\n\n", v.Config)
	default:
		a.printf("policy: %s; not in force\n\n", v.Config)
	}
	if len(v.Ports) == 0 {
		a.printf("nothing listens, and nothing is open\n")
		return
	}
	rows := [][]string{{"STATE", "PORT", "ADDRESS", "PROCESS", "FROM", "OTHERWISE"}}
	closed, unused := 0, 0
	for _, p := range v.Ports {
		rows = append(rows, []string{string(p.State), p.Port, strings.Join(p.Addresses, ","), strings.Join(p.Processes, ", "),
			fromText(p), p.Fix})
		switch p.State {
		case audit.Closed:
			closed++
		case audit.Unused:
			unused++
		}
	}
	a.table(rows)
	a.printf("\n%d closed although something listens, %s\n", closed, count(unused, "rule that nobody uses", "rules that nobody uses"))
}

// fromText returns who may come to a port.
func fromText(p audit.Entry) string {
	from := p.From
	if len(p.Bypass) > 0 && !slices.Contains(from, "*") {
		from = append(slices.Clone(from), "anyone by "+strings.Join(p.Bypass, " and "))
	}
	return strings.ReplaceAll(strings.Join(from, ","), "*", "anyone")
}

func namesOfInterfaces(interfaces []host.Interface) []string {
	names := make([]string, len(interfaces))
	for i, one := range interfaces {
		names[i] = one.Name
	}
	return names
}
