// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall/audit"
)

func (a *app) auditCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "audit",
		Short: "Compare what listens with what is open",
		Long: `Compare the sockets that listen on this host, and the ports that it publishes for
containers, with the policy in force, or with the file if nothing runs.

  closed  something listens, and no rule lets anybody come
  open    something listens, and a rule lets others come, or an interface that is not filtered
  unused  a rule opens a port, and nobody listens

Each port comes with the command for the case that it was not meant so. What listens on the
loopback alone is left out, and so are UDP sockets that seem to wait for answers only: those
on the ports of net.ipv4.ip_local_port_range. It changes nothing, and exits with 0 whatever
it finds.`,
		Example: `  portcullis audit
  portcullis audit -o json | jq -r '.ports[] | select(.state == "unused") | .fix'`,
		GroupID: "more",
		Args:    noArguments,
		RunE:    func(*cobra.Command, []string) error { return a.audit() },
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

func (a *app) audit() error {
	view := auditView{}
	in, err := audit.Gather()
	if in == nil {
		return err
	}
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		a.warn(err.Error())
	}
	if a.privileged() != nil {
		a.warn("without root the file is compared, not what is in force; processes and ports of containers are not seen")
	} else if f, err := a.firewall.Open(a.pinPath); err == nil {
		view.Running, in.Policy = true, f.Policy()
		f.Close()
		a.recall()
	} else if !isNotRunning(err) {
		return err
	}
	if !view.Running {
		if in.Policy, view.BuiltIn, err = a.wanted(); err != nil {
			return err
		}
	}
	filtered, err := a.interfaces(nil, in.Policy.Interfaces, nil)
	if err != nil {
		a.warn(err.Error())
	} else if in.Unfiltered, err = a.firewall.Unfiltered(filtered); err != nil {
		a.warn(err.Error())
	}
	in.Flags = a.commandLine()
	view.Unfiltered = namesOfInterfaces(in.Unfiltered)
	if view.Running {
		a.warn(unfilteredText(view.Unfiltered, in.Flags)...)
	}
	view.Config, view.Ports = a.config, list(audit.Compare(*in))
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

// fromText tells who may come to a port.
func fromText(p audit.Entry) string {
	from := p.From
	if len(p.Bypass) > 0 && !slices.Contains(from, "*") {
		from = append(slices.Clone(from), "anyone by "+strings.Join(p.Bypass, " and "))
	}
	return strings.ReplaceAll(strings.Join(from, ","), "*", "anyone")
}
